"""The asyncio client: numpy in, numpy out."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc.aio
from numpy.typing import ArrayLike

from forebay import addresses
from forebay.inference import CHANNEL_OPTIONS, Call, InferResult, build_request, check_tenant
from forebay.stubs import router_service
from forebay.task_client import requests
from forebay.task_client.calls import CALL_TIMEOUT_S, TaskCalls
from forebay.task_client.engine import MapEngine
from forebay.task_client.handle import AsyncTaskHandle
from forebay.task_client.mapped import AsyncTaskMap
from forebay.task_client.options import TaskOptions
from forebay.task_client.plan import MapOptions, MapPlan, plan_of
from forebay.task_client.progress_bar import ProgressBar
from forebay.task_client.status import TaskStatus, status_of, task_name
from services.runtime import telemetry


class AsyncClient:
    """A connection to a mesh's router for one event loop; tasks may share it.

        async with forebay.AsyncClient() as client:
            result = await client.infer("resnet", {"INPUT": batch}, timeout_s=2.0)

    Cancelling the task that awaits `infer` cancels the request in the mesh. Spans are made and sent
    when OTEL_EXPORTER_OTLP_ENDPOINT is set; a span that is active in the caller's OpenTelemetry
    context becomes the parent.
    """

    def __init__(self, address: str | None = None, tenant: str | None = None) -> None:
        """Prepares a connection; nothing is dialled before the first call.

        Args:
            address: the router's `host:port`. None takes FOREBAY_ROUTER, else the local mesh of
                `forebay up`, else 127.0.0.1:7701.
            tenant: whom all calls speak for, 1 to 63 of a-z, 0-9 and '-', starting with a letter;
                None means `default`. Tasks of other tenants are not found.

        Raises:
            InvalidRequestError: if there can be no such tenant.
        """
        self.address = addresses.resolve(addresses.ROUTER, address)
        self.tenant = check_tenant(tenant)
        if not telemetry.enabled():
            telemetry.configure(telemetry.CLIENT)
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._tasks: TaskCalls | None = None

    async def infer(
        self,
        deployment: str,
        inputs: Mapping[str, ArrayLike],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        model_version: str = "",
    ) -> InferResult:
        """Runs one inference and waits for its result.

        Args:
            deployment: name of the deployment.
            inputs: arrays by input name, with the shapes and types of the model's configuration;
                where the model batches, the first dimension is the batch. BYTES inputs are object
                arrays of bytes or str. See `forebay.tensors` for every type.
            outputs: names of the wanted outputs; None means all.
            timeout_s: seconds the call may take, waiting in the queue included; None means the
                deployment's `request_timeout_s`.
            idempotency_key: repeating a call with the same key and content within two minutes
                returns the first call's result instead of running the model again; at most 255
                characters. None: every call runs.
            model_version: version of the model inside the deployment; empty lets Triton choose.

        Returns:
            The output arrays by name, with the request's ids.

        Raises:
            DeploymentNotFoundError: if there is no such deployment.
            InvalidRequestError: if the request does not fit the model or is larger than 8 MiB.
            DeadlineExceededError: if no result arrived within `timeout_s`.
            QueueFullError: if too much waits already; `retry_after_s` says when to try again.
            UnavailableError: if the mesh cannot be reached or is stopping.
            PoisonRequestError: if the request killed every replica that tried it.
            ModelError: if the model raised; the message is the model's.
            InvalidResponseError: if the answer contradicts itself.
            asyncio.CancelledError: if the awaiting task was cancelled.
        """
        request = build_request(deployment, inputs, outputs, idempotency_key, model_version)
        stub = self._router()
        call = Call(deployment, self.address, self.tenant)
        sent = stub.Infer(request, timeout=timeout_s, metadata=call.metadata)
        try:
            response = await sent
            trailers = await sent.trailing_metadata()
        except grpc.RpcError as error:
            raise call.failed(error) from None
        except BaseException:
            sent.cancel()
            call.end("CANCELLED", status="CANCELLED")
            raise
        return call.succeeded(response, trailers)

    async def submit(
        self,
        deployment: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        model_version: str = "",
        batch: str | None = None,
        batch_index: int | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        **options: Unpack[TaskOptions],
    ) -> AsyncTaskHandle:
        """Stores a task and returns at once; the model runs when a replica is free.

        Args:
            deployment: name of the deployment.
            inputs: arrays by input name, as for `infer`.
            outputs: names of the wanted outputs; None means all.
            model_version: version of the model inside the deployment; empty lets Triton choose.
            batch: the batch it belongs to, 1 to 63 of a-z, 0-9 and '-', starting with a letter.
            batch_index: its position in the batch; a position is one task, however often it is
                submitted.
            idempotency_key: submitting the same content with the same key again returns the first
                task, for as long as it is kept; at most 255 characters. None: a key is made up, so
                that this call, repeated while the mesh is away, stores one task.
            timeout_s: seconds to go on trying while the mesh is away.
            options: see `forebay.tasks.TaskOptions`.

        Returns:
            The task; its `name` finds it again from anywhere.

        Raises:
            DeploymentNotFoundError: if there is no such deployment.
            InvalidRequestError: if the request or an option is malformed, or larger than 8 MiB.
            IdempotencyConflictError: if the key was used with another content.
            QueueFullError: if the queue has no room.
            UnavailableError: if the mesh cannot be reached within `timeout_s`.
        """
        request = requests.submission(
            build_request(deployment, inputs, outputs, None, model_version),
            batch,
            batch_index,
            idempotency_key,
            options,
        )
        stored = await self._calls().submit(request, timeout_s)
        return AsyncTaskHandle(self._calls(), stored.name)

    def task(self, name: str) -> AsyncTaskHandle:
        """A task by its name; nothing is asked of the mesh.

        Args:
            name: `deployments/{deployment}/tasks/{task}`, or `deployment/task`.

        Raises:
            ForebayError: if `name` is neither.
        """
        return AsyncTaskHandle(self._calls(), task_name(name))

    async def tasks(
        self,
        deployment: str | None = None,
        *,
        states: Iterable[str] = (),
        batch: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[TaskStatus]:
        """The tenant's tasks: waiting and running ones first, each kind oldest first.

        Args:
            deployment: only of this one; None means all.
            states: only in one of these, such as `("queued", "failed")`; none means any.
            batch: only of this one; None means any.
            labels: only with all of these.

        Raises:
            InvalidRequestError: if there is no such state.
            DeploymentNotFoundError: if there is no such deployment.
        """
        request = requests.listing(deployment, states, batch, labels)
        async for task in self._calls().listed(request):
            yield status_of(task)

    async def purge_tasks(
        self,
        deployment: str,
        *,
        states: Iterable[str] = (),
        batch: str | None = None,
        dry_run: bool = False,
        timeout_s: float = 300.0,
    ) -> int:
        """Forgets tasks and their results; those that wait or run are cancelled first.

        Args:
            deployment: of this one.
            states: only in one of these; none means those that have ended.
            batch: only of this one; None means any.
            dry_run: purges nothing, and says how many it would be.
            timeout_s: seconds it may take.

        Returns:
            How many were forgotten.

        Raises:
            InvalidRequestError: if there is no such state.
            DeploymentNotFoundError: if there is no such deployment.
        """
        request = requests.purge(deployment, states, batch, dry_run)
        return await self._calls().purge(request, timeout_s)

    def map(
        self,
        deployment: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        return_exceptions: bool = False,
        batch: str | None = None,
        progress: bool = False,
        **options: Unpack[MapOptions],
    ) -> AsyncTaskMap[Any]:
        """Runs a deployment over many inputs, each a task; results come as they are there.

        Memory does not grow with the number of inputs. Work begins with the first result asked
        for. Inputs are read on the event loop if their iterator is
        asynchronous, else in a thread of their own. What one input comes to does
        not stop the others: with `return_exceptions` its error stands in its place, else it is
        raised at its turn. What the iterator of inputs raises is raised after the results of what
        it gave before. Whatever ends the iteration early, what was submitted goes on.

        Args:
            deployment: name of the deployment.
            inputs: mappings of input name to array, as for `infer`; or anything, with `encode`.
            return_exceptions: errors are handed out like results instead of raised.
            batch: 1 to 63 of a-z, 0-9 and '-', starting with a letter. Mapping the same inputs in
                the same order again with the same batch, also after the caller was killed, goes on:
                what has ended is not run again. None: a new one, in `.batch` of what is returned.
            progress: shows a bar on standard error, if that is a terminal.
            options: see `forebay.tasks.MapOptions`, such as `batch_size` and `max_in_flight`, and
                `forebay.tasks.TaskOptions`.

        Returns:
            An asynchronous iterator over InferResult and, with `return_exceptions`, exceptions.
            `aclose()` stops handing in.

        Raises:
            InvalidRequestError: if an option is not legal.
            DeploymentNotFoundError: while iterating, if there is no such deployment.
            UnavailableError: while iterating, if the mesh was away for `patience_s`.
            ForebayError: while iterating, of the kind that says what an input came to.
        """
        plan = plan_of(deployment, batch, options)
        bar = ProgressBar.over(inputs, deployment, progress)
        return AsyncTaskMap(self.engine(plan, inputs), plan.batch, return_exceptions, bar)

    def engine(self, plan: MapPlan, inputs: Iterable[Any] | AsyncIterable[Any]) -> MapEngine:
        """What does a map; for those that hand out its results in a way of their own."""
        return MapEngine(self._calls(), plan, inputs)

    async def close(self) -> None:
        """Closes the connection; calls still running are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            # A channel belongs to the running loop, which there may not be in __init__.
            self._channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        return self._channel

    def _router(self) -> Any:
        if self._stub is None:
            self._stub = router_service(self._open())
        return self._stub

    def _calls(self) -> TaskCalls:
        if self._tasks is None:
            self._tasks = TaskCalls(self._open(), self.address, self.tenant)
        return self._tasks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
