"""Makes a deployment of a function."""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from forebay import addresses, becoming_ready, deploying, schedules
from forebay.deployment_file import DeploymentSpec
from forebay.errors import InvalidRequestError, from_rpc_error
from forebay.functions import packaging, sources
from forebay.functions.connections import portal
from forebay.functions.errors import DeploymentFailedError, FunctionDefinitionError
from forebay.functions.settings import check_calls
from forebay.inference import build_request
from forebay.task_client.options import task_of
from services.wire.channels import open_channel
from services.wire.model_archive import ModelArchiveError

if TYPE_CHECKING:
    from forebay.functions.function import Function

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function that is a deployment.

    Attributes:
        name: of the deployment.
        generation: rises with each change of what a replica runs.
        changed: `created`, `unchanged`, or `updated` and the fields.
    """

    name: str
    generation: int
    changed: tuple[str, ...]


@contextlib.contextmanager
def packed(function: "Function") -> Iterator[tuple[DeploymentSpec, Path]]:
    """The declaration and the model directory of a function, until the block ends.

    Raises:
        FunctionDefinitionError: if it cannot become a deployment.
    """
    settings = function.settings
    source = sources.locate(function.target)
    spec = settings.spec(source)
    check_calls(settings.name, function.call_options, source)
    _check_schedule(function, source)
    files = sources.collect(source, settings.include)
    with tempfile.TemporaryDirectory(prefix="forebay-function-") as directory:
        try:
            packaging.write(
                Path(directory),
                source,
                files,
                settings.requirements,
                settings.max_batch_size if settings.batch else None,
                settings.batch_delay_s,
            )
        except OSError as error:
            raise FunctionDefinitionError(
                f"cannot pack {settings.name}: {error.filename}: {error.strerror}"
            ) from error
        yield spec, Path(directory)


async def deploy(
    function: "Function",
    autoscaler: str | None = None,
    metrics: str | None = None,
    wait_s: float | None = None,
    tell: deploying.Told | None = None,
) -> Deployed:
    """Packs a function, uploads it and declares its deployment.

    Args:
        function: the function.
        autoscaler: address of the autoscaler; None means FOREBAY_AUTOSCALER, else the local mesh.
        metrics: address of the metrics service, in the same way.
        wait_s: seconds to wait until as many replicas as it should have are ready; None: none.
        tell: told what is going on.

    Raises:
        FunctionDefinitionError: if it cannot become a deployment.
        DeploymentFailedError: if a replica fails or is not ready in time.
        ForebayError: if the mesh does not take it.
    """
    tell = tell or deploying.Quiet()
    address = addresses.resolve(addresses.AUTOSCALER, autoscaler)
    settings = function.settings
    with packed(function) as (spec, directory):
        async with open_channel(address) as channel:
            try:
                tell(f"packing {settings.name}")
                digest = await deploying.provide_model(directory, channel, tell)
                tell(f"declaring {settings.name}")
                deployment, changed = await deploying.declare(spec.to_proto(digest), channel)
                await declare_schedule(function, channel)
                if wait_s is not None:
                    async with open_channel(
                        addresses.resolve(addresses.METRICS, metrics)
                    ) as measured:
                        deployment = await becoming_ready.until_ready(
                            deployment, channel, measured, wait_s, tell, changed == ["created"]
                        )
            except (deploying.BusyDeploymentError, becoming_ready.NotReadyError) as error:
                raise DeploymentFailedError(str(error)) from None
            except ModelArchiveError as error:
                raise FunctionDefinitionError(f"cannot pack {settings.name}: {error}") from None
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, address, None) from None
    return Deployed(settings.name, deployment.generation, tuple(changed))


async def declare_schedule(function: "Function", channel: grpc.aio.Channel) -> str:
    """Makes the schedule of a deployed function what its decorator says.

    Returns:
        What was done, as `schedules.declare` says it; empty if nothing.

    Raises:
        ScheduleError: if another schedule has the name.
        grpc.aio.AioRpcError: if the autoscaler does not take it.
    """
    request = None
    if function.schedule is not None:
        request = build_request(function.name, _scheduled_inputs(function), None, None, "")
    options = function.call_options.of_tasks()
    return await schedules.declare(
        function.schedule, function.name, request, channel, task_of(**options)
    )


def _scheduled_inputs(function: "Function") -> Any:
    argument = function.schedule.argument
    return function.inputs(*(() if argument is None else (argument,)))


def _check_schedule(function: "Function", source: sources.Source) -> None:
    """Refuses a schedule that the function cannot be called by, before anything is deployed."""
    if function.schedule is None:
        return
    try:
        _scheduled_inputs(function)
    except (TypeError, InvalidRequestError) as error:
        raise FunctionDefinitionError(
            f"{source.file}:{source.line}: @forebay.schedule calls {source.name} with argument = "
            f"{function.schedule.argument!r}, where None is no argument, and it does not take "
            f"that: {error}. Give it one with @forebay.schedule(..., argument=...), or give its "
            "parameters defaults"
        ) from None


def blocking(work: Coroutine[Any, Any, T], instead: str) -> T:
    """Runs a coroutine to its end.

    Raises:
        RuntimeError: on an event loop, which it would block; it names what to await instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return portal().call(work)
    work.close()
    raise RuntimeError(f"this would block the event loop; await {instead} instead")
