"""`forebay deploy`: uploads the model, creates or updates the deployment, waits until it serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio

from forebay import addresses, deployment_file
from forebay.cli.failure import FAILED, USAGE, CliError, raise_for
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, Progress, count_of, print_json, progress, say, to_plain
from forebay.cli.rollout import until_ready
from forebay.cli.scaling_words import target_of
from forebay.deploying import BusyDeploymentError, declare, provide_model
from forebay.deployment_file import DeploymentFile, DeploymentFileError, DeploymentSpec
from forebay.functions import loading
from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.function import Function
from forebay.functions.upload import declare_schedule, packed
from forebay.schedules import ScheduleError
from forebay.v1.deployment_pb2 import Deployment
from services.wire.model_archive import ModelArchiveError
from services.wire.names import deployment_id


async def run(path: Path, where: Where, wait: bool, timeout_s: float, output: Output) -> None:
    """Deploys what a file declares, or a function.

    Args:
        path: a deployment file or its directory, `file.py`, or `file.py:name`.
        where: where the mesh is.
        wait: whether to wait until it serves.
        timeout_s: how long, in seconds.
        output: how the deployment is printed.

    Raises:
        CliError: if it cannot be deployed or a replica of it fails.
    """
    with _source(path) as (spec, model_directory, function):
        with progress(f"packing {spec.name}") as tell:
            async with link_to(addresses.AUTOSCALER, where) as autoscaler:
                deployment, change = await put(spec, model_directory, autoscaler, tell)
                say(_said(deployment, change))
                if function is not None:
                    await _schedule(function, autoscaler)
                if wait:
                    async with link_to(addresses.METRICS, where) as metrics:
                        deployment = await until_ready(
                            deployment,
                            autoscaler,
                            metrics,
                            timeout_s,
                            tell,
                            is_new=change == ["created"],
                        )
                    say(_ended(deployment))
    if output is Output.JSON:
        print_json({"change": change[0], **to_plain(deployment)})


@contextmanager
def _source(path: Path) -> Iterator[tuple[DeploymentSpec, Path, Function | None]]:
    """What is declared, its model directory, and the function if it is one."""
    if loading.is_function(str(path)):
        try:
            function = loading.function_of(str(path))
            with packed(function) as (spec, directory):
                yield spec, directory, function
        except FunctionDefinitionError as error:
            raise CliError(error.message, USAGE) from error
        return
    try:
        file = deployment_file.load(path)
    except DeploymentFileError as error:
        raise CliError(str(error), USAGE) from error
    for note in file.notes:
        say(note)
    yield file.spec, file.model_directory, None


async def _schedule(function: Function, autoscaler: Link) -> None:
    try:
        outcome = await declare_schedule(function, autoscaler.channel)
    except ScheduleError as error:
        raise CliError(f"the schedule of {function.name}: {error}", USAGE) from error
    except grpc.aio.AioRpcError as error:
        raise_for(error, autoscaler.service, autoscaler.address)
    if outcome and outcome != "unchanged":
        say(f"{function.name}: schedule {outcome}")


async def deploy(
    file: DeploymentFile, autoscaler: Link, tell: Progress
) -> tuple[Deployment, list[str]]:
    """Uploads the model and declares the deployment.

    Returns:
        The deployment, and what was done: `created`, `unchanged`, or `updated` and the fields.

    Raises:
        CliError: if it fails.
    """
    return await put(file.spec, file.model_directory, autoscaler, tell)


async def put(
    spec: DeploymentSpec, model_directory: Path, autoscaler: Link, tell: Progress
) -> tuple[Deployment, list[str]]:
    """As `deploy`, of what is in no file."""
    tell(f"packing {spec.name}")
    try:
        digest = await provide_model(model_directory, autoscaler.channel, tell)
        tell(f"declaring {spec.name}")
        return await declare(spec.to_proto(digest), autoscaler.channel)
    except (ModelArchiveError, OSError) as error:
        raise CliError(str(error), USAGE) from error
    except BusyDeploymentError as error:
        raise CliError(str(error), FAILED) from None
    except grpc.aio.AioRpcError as error:
        raise_for(error, autoscaler.service, autoscaler.address)


def _ended(deployment: Deployment) -> str:
    name = deployment_id(deployment.name)
    target = target_of(deployment)
    ready = deployment.status.updated_replica_count
    if deployment.HasField("pinned_replicas"):
        held = f"pinned, until `forebay scale {name} --release`"
        return f"{name} is ready: {count_of(ready, 'replica')}, {held}"
    if not deployment.HasField("scaling"):
        return f"{name} is ready: {count_of(deployment.replicas, 'replica')}"
    if target == 0:
        return f"{name} is at zero replicas: the first request will start it"
    scaling = deployment.scaling
    bounds = f"{scaling.min_replicas} to {scaling.max_replicas} with the load"
    return f"{name} is ready: {count_of(ready, 'replica')}, {bounds}"


def _said(deployment: Deployment, change: list[str]) -> str:
    what, *fields = change
    detail = f" ({', '.join(fields)})" if fields else ""
    name = deployment_id(deployment.name)
    return f"{name} {what}{detail}: generation {deployment.generation}"
