"""The asyncio client: numpy in, numpy out."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc.aio
from numpy.typing import ArrayLike

from forebay import addresses
from forebay.inference import CHANNEL_OPTIONS, Call, InferResult, build_request
from forebay.stubs import router_service
from services.runtime import telemetry


class AsyncClient:
    """A connection to a mesh's router for one event loop; tasks may share it.

        async with forebay.AsyncClient() as client:
            result = await client.infer("resnet", {"INPUT": batch}, timeout_s=2.0)

    Cancelling the task that awaits `infer` cancels the request in the mesh. Spans are made and sent
    when OTEL_EXPORTER_OTLP_ENDPOINT is set; a span that is active in the caller's OpenTelemetry
    context becomes the parent.
    """

    def __init__(self, address: str | None = None) -> None:
        """Prepares a connection; nothing is dialled before the first call.

        Args:
            address: the router's `host:port`. None takes FOREBAY_ROUTER, else the local mesh of
                `forebay up`, else 127.0.0.1:7701.
        """
        self.address = addresses.resolve(addresses.ROUTER, address)
        if not telemetry.enabled():
            telemetry.configure("client")
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

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
        if self._channel is None:
            # A channel belongs to the running loop, which there may not be in __init__.
            self._channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
            self._stub = router_service(self._channel)
        call = Call(deployment, self.address)
        sent = self._stub.Infer(request, timeout=timeout_s, metadata=call.metadata)
        try:
            response = await sent
            trailers = await sent.trailing_metadata()
        except grpc.RpcError as error:
            raise call.failed(error) from None
        except BaseException:
            sent.cancel()
            call.end("cancelled")
            raise
        return call.succeeded(response, trailers)

    async def close(self) -> None:
        """Closes the connection; calls still running are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
