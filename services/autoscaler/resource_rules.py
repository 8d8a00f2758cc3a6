"""What one replica may ask of its node: resources, volumes, an environment, an image. Pure."""

import math
from collections.abc import Mapping, Sequence

from forebay.v1.deployment_pb2 import ReplicaResources, VolumeMount
from services.autoscaler import ranges
from services.wire import deployment_words as words
from services.wire.names import quoted
from services.wire.status import invalid_argument

MAX_GPUS = 1024
MIN_GPU_FRACTION = 0.01
MAX_CPUS = 1024
MAX_WORKERS = 64
MAX_CUSTOM = 16
MAX_CUSTOM_AMOUNT = 1_000_000
MAX_ENVIRONMENT = 64


def check_resources(resources: ReplicaResources) -> None:
    """Checks what one replica needs.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
    """
    _check_gpus(resources)
    _check_cpus(resources.cpus)
    if resources.memory_bytes < 0:
        raise invalid_argument(
            f"resources.memory_bytes = {resources.memory_bytes}: it must be 0 or more"
        )
    ranges.whole("resources.workers", resources.workers, 0, MAX_WORKERS)
    _check_custom(resources.custom)


def check_environment(environment: Mapping[str, str]) -> None:
    """Checks the environment variables of a replica's Triton.

    The errors name no value: it may be a secret.

    Raises:
        StatusError: INVALID_ARGUMENT naming the variable and what is legal.
    """
    if len(environment) > MAX_ENVIRONMENT:
        raise invalid_argument(
            f"environment has {len(environment)} variables: there may be at most {MAX_ENVIRONMENT}"
        )
    for name, value in environment.items():
        if not words.is_variable(name):
            raise invalid_argument(
                f"environment: {quoted(name)} cannot name a variable: a name is "
                f"{words.LEGAL_VARIABLE}"
            )
        if words.is_reserved(name):
            raise invalid_argument(
                f"environment: {name} is set by the node agent: leave it out. Reserved are "
                f"{words.RESERVED}"
            )
        if not words.is_variable_value(value):
            raise invalid_argument(
                f"environment: the value of {name} has {len(value)} characters: it must be "
                f"{words.LEGAL_VALUE}"
            )


def check_volumes(volumes: Sequence[VolumeMount]) -> None:
    """Checks the volumes that a replica sees. Whether any node offers them is for placement to say.

    Raises:
        StatusError: INVALID_ARGUMENT naming the volume and what is legal.
    """
    if len(volumes) > words.MAX_VOLUMES:
        raise invalid_argument(
            f"volumes: {len(volumes)} are named: there may be at most {words.MAX_VOLUMES}"
        )
    seen: set[str] = set()
    for volume in volumes:
        if not words.is_volume(volume.name):
            raise invalid_argument(
                f"volumes: {quoted(volume.name)} cannot name a volume: a name is "
                f"{words.LEGAL_VOLUME}"
            )
        if volume.name in seen:
            raise invalid_argument(f"volumes: {volume.name} is named twice: name it once")
        seen.add(volume.name)


def check_image(image: str) -> None:
    """Checks the image of a replica's container. Whether a node allows it is for its launcher.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
    """
    if image and not words.is_image(image):
        raise invalid_argument(
            f"image = {quoted(image)}: it must be {words.LEGAL_IMAGE}, or left out for the node's "
            "own"
        )


def _check_gpus(resources: ReplicaResources) -> None:
    gpus = resources.gpus
    whole = math.isfinite(gpus) and gpus == int(gpus)
    if not (0 <= gpus <= MAX_GPUS and (whole or MIN_GPU_FRACTION <= gpus < 1)):
        raise invalid_argument(
            f"resources.gpus = {gpus:g}: it must be a whole number from 0 to {MAX_GPUS}, or a "
            f"fraction of one GPU from {MIN_GPU_FRACTION} to below 1"
        )
    memory_bytes = resources.gpu_memory_bytes
    if memory_bytes < 0:
        raise invalid_argument(f"resources.gpu_memory_bytes = {memory_bytes}: it must be 0 or more")
    if memory_bytes and not gpus:
        raise invalid_argument(
            f"resources.gpu_memory_bytes = {memory_bytes}, but resources.gpus is 0: a replica on a "
            "CPU slot has no GPU memory"
        )
    product = resources.accelerator_type
    if not product:
        return
    if not words.is_accelerator_type(product):
        raise invalid_argument(
            f"resources.accelerator_type = {quoted(product)}: it must be "
            f"{words.LEGAL_ACCELERATOR_TYPE}"
        )
    if not gpus:
        raise invalid_argument(
            f"resources.accelerator_type = {quoted(product)}, but resources.gpus is 0: a replica "
            "on a CPU slot has no GPU; ask for gpus, or name the node's kind in resources.custom"
        )


def _check_cpus(cpus: float) -> None:
    # In hundredths: 0.29 * 100 is 28.999999999999996.
    legal = math.isfinite(cpus) and 0 <= cpus <= MAX_CPUS
    if not legal or abs(cpus * 100 - round(cpus * 100)) > 1e-6:
        raise invalid_argument(
            f"resources.cpus = {cpus:g}: it must be 0 to {MAX_CPUS}, in hundredths"
        )


def _check_custom(custom: Mapping[str, float]) -> None:
    if len(custom) > MAX_CUSTOM:
        raise invalid_argument(
            f"resources.custom has {len(custom)} resources: there may be at most {MAX_CUSTOM}"
        )
    for name, amount in custom.items():
        if not words.is_resource(name):
            raise invalid_argument(
                f"resources.custom: {quoted(name)} cannot name a resource: a name is "
                f"{words.LEGAL_RESOURCE}"
            )
        ranges.above_zero(f"resources.custom.{name}", amount, MAX_CUSTOM_AMOUNT)
