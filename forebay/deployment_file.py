"""The YAML file that declares a deployment; its errors name file, line, key, value and what is legal.

Relative paths in it are relative to the file.
"""  # noqa: E501

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from forebay.deployment_errors import LEGAL, explain
from forebay.deployment_yaml import DeploymentFileError, Problem, Text, read
from forebay.renamed_keys import renamed
from forebay.resources_file import (
    MAX_ENVIRONMENT,
    Resources,
    environment_problems,
    resource_problems,
)
from forebay.scaling_file import STRICT, ScalingSpec, duration, problems_of
from forebay.v1.deployment_pb2 import Canary, Deployment
from forebay.volumes_file import VolumeItem, mounts, volume_problems
from services.wire import deployment_words as words
from services.wire.names import InvalidNameError, check_id, deployment_name

__all__ = ["DeploymentFile", "DeploymentFileError", "DeploymentSpec", "Parsed", "load", "parse"]

FILE_NAMES = ("deployment.yaml", "deployment.yml")


class DeploymentSpec(BaseModel):
    """A model served under a name, with the resources of one replica and a scaling policy."""

    model_config = STRICT

    name: str = Field(
        description="Name clients call: 1 to 63 of a-z, 0-9 and '-', starting with a letter and "
        "not ending with '-'."
    )
    model: str = Field(
        min_length=1,
        description="Triton model directory (config.pbtxt and versions), relative to this file.",
    )
    replicas: int = Field(
        default=1, ge=0, le=1000, description="How many replicas run. Not together with scaling."
    )
    scaling: ScalingSpec | None = Field(
        default=None, description="How the number of replicas follows the load."
    )
    resources: Resources = Field(
        default=Resources(),
        description="What one replica needs of its node: GPUs, CPUs, memory and what else it has.",
    )
    placement: Literal["compact", "spread"] = Field(
        default="compact",
        description="Where replicas go: on the fullest GPU and node that fit, so that nodes become "
        "idle, or on the node with the fewest replicas of the deployment.",
    )
    environment: dict[str, str] = Field(
        default={},
        max_length=MAX_ENVIRONMENT,
        description="Environment variables of every replica's Triton. Thread counts such as "
        "OMP_NUM_THREADS follow resources.cpus unless they are set here.",
    )
    volumes: list[VolumeItem] = Field(
        default=[],
        max_length=words.MAX_VOLUMES,
        description="Folders that all replicas share, by the names that nodes give them: `data`, "
        "or `data: {read_only: true}`.",
    )
    image: str = Field(
        default="",
        max_length=words.MAX_IMAGE_CHARACTERS,
        description="Image of the replicas' containers, on nodes that run containers and whose "
        "launcher allows it. Empty: the node's own.",
    )
    max_ongoing_requests: int = Field(
        default=8, ge=1, le=1024, description="Requests one replica works on at once."
    )
    request_timeout_s: float = Field(
        default=60.0,
        ge=0.001,
        le=86400,
        description="Seconds a call without a deadline gets, and the longest one attempt may run.",
    )
    max_queued_requests: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Requests that may wait or run through one router.",
    )
    canary: Literal["zeros", "off"] = Field(
        default="zeros",
        description="Inference a replica must pass before it takes requests: inputs of zeros and "
        "empty strings, or none, for models that refuse zeros.",
    )

    @field_validator("name")
    @classmethod
    def _may_name_a_deployment(cls, value: str) -> str:
        try:
            return check_id(value, "deployment")
        except InvalidNameError:
            raise ValueError("not a name") from None

    def to_proto(self, model_digest: str) -> Deployment:
        """The deployment as the autoscaler takes it, with defaults filled in."""
        spread = self.placement == "spread"
        deployment = Deployment(
            name=deployment_name(self.name),
            model_digest=model_digest,
            replicas=self.replicas if self.scaling is None else 0,
            resources=self.resources.to_proto(),
            max_ongoing_requests=self.max_ongoing_requests,
            max_queued_requests=self.max_queued_requests,
            request_timeout=duration(self.request_timeout_s),
            canary=Canary(mode=Canary.MODE_OFF if self.canary == "off" else Canary.MODE_ZEROS),
            placement=Deployment.PLACEMENT_SPREAD if spread else Deployment.PLACEMENT_COMPACT,
            environment=self.environment,
            volumes=mounts(self.volumes),
            image=self.image,
        )
        if self.scaling is not None:
            deployment.scaling.CopyFrom(self.scaling.to_proto(self.max_ongoing_requests))
        return deployment


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text declares.

    Attributes:
        spec: the deployment.
        lines: the line of each key by its dotted path.
        notes: a sentence, with its line, on each key that is called otherwise here.
    """

    spec: DeploymentSpec
    lines: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeploymentFile:
    """A deployment file that was read.

    Attributes:
        path: the file.
        spec: what it declares.
        model_directory: the Triton model directory it names.
        notes: a sentence, with its line, on each key that is called otherwise here.
    """

    path: Path
    spec: DeploymentSpec
    model_directory: Path
    notes: tuple[str, ...] = ()


def load(path: Path) -> DeploymentFile:
    """Reads a deployment file.

    Args:
        path: the file, or a directory with a `deployment.yaml`.

    Raises:
        DeploymentFileError: if it cannot be read or is not legal.
    """
    if path.is_dir():
        path = _in_directory(path)
    parsed = parse(_read(path), str(path))
    model = parsed.spec.model
    directory = path.parent / model
    if not (directory / "config.pbtxt").is_file():
        reason = "has no config.pbtxt" if directory.is_dir() else "is not there"
        raise DeploymentFileError(
            f"{path}:{parsed.lines.get('model', 1)}: model = {model!r}: {directory} {reason}; "
            f"legal is a {LEGAL['model'].removesuffix(', relative to this file')} with config.pbtxt"
        )
    return DeploymentFile(path, parsed.spec, directory, parsed.notes)


def parse(text: str, source: str) -> Parsed:
    """The deployment a text declares.

    Args:
        text: YAML.
        source: name of the text in errors.

    Raises:
        DeploymentFileError: if the text is not legal.
    """
    return parsed(read(text, source, list(DeploymentSpec.model_fields)))


def parsed(found: Text) -> Parsed:
    """The deployment that values declare.

    Raises:
        DeploymentFileError: if they are not legal.
    """
    names = renamed(found.values)
    wrong = [found.told(problem) for problem in names.problems]
    try:
        spec = DeploymentSpec.model_validate(names.values)
    except ValidationError as error:
        wrong += explain(error, DeploymentSpec, found, names)
    else:
        wrong += [
            found.told(replace(problem, key=names.in_file(problem.key)), names.called(problem.key))
            for problem in _problems(spec)
        ]
    if wrong:
        raise DeploymentFileError("\n".join(wrong))
    return Parsed(spec, found.lines, tuple(found.told(note) for note in names.notes))


def _problems(spec: DeploymentSpec) -> Iterator[Problem]:
    """What is wrong between keys that are each legal."""
    nulls = list(_nulls(spec))
    if nulls:
        for key in nulls:
            yield Problem(key, f"is empty; legal is {LEGAL[re.sub(r'[.][0-9]+', '', key)]}")
        return
    yield from resource_problems(spec.resources)
    yield from environment_problems(spec.environment)
    yield from volume_problems(spec.volumes)
    if spec.image and not words.is_image(spec.image):
        yield Problem("image", f"= {spec.image!r}; legal is {LEGAL['image']}")
    if spec.scaling is None:
        return
    if "replicas" in spec.model_fields_set:
        yield Problem(
            "replicas",
            f"= {spec.replicas} and scaling cannot both be there; drop replicas and let scaling "
            "decide (min_replicas, max_replicas), or drop scaling for a fixed number",
        )
    yield from problems_of(spec.scaling)


def _nulls(model: BaseModel, prefix: str = "") -> Iterator[str]:
    """Keys that are there without a value: leaving them out is how to get the default."""
    for key in model.model_fields_set:
        value = getattr(model, key)
        if value is None:
            yield f"{prefix}{key}"
        elif isinstance(value, BaseModel):
            yield from _nulls(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _nulls(item, f"{prefix}{key}.{index}.")


def _in_directory(directory: Path) -> Path:
    for name in FILE_NAMES:
        if (directory / name).is_file():
            return directory / name
    raise DeploymentFileError(f"{directory} has no {FILE_NAMES[0]}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DeploymentFileError(f"{path} is not text in UTF-8: {error.reason}") from error
    except OSError as error:
        raise DeploymentFileError(f"cannot read {path}: {error.strerror}") from error
