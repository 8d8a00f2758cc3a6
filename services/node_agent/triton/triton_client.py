"""Talks to one Triton over gRPC. Bodies pass as bytes."""

import asyncio

import grpc

from services.wire.http2.client.replies import DEADLINE_EXCEEDED, Failure
from services.wire.http2.client.unary_channel import CallFailedError, UnaryChannel
from services.wire.http2.frames import literal_fields
from services.wire.limits import MAX_GRPC_MESSAGE_BYTES
from services.wire.triton_stubs import service_pb2 as triton

ACCESS_KEY_HEADER = b"triton-grpc-protocol-forebay"
"""Where a Triton started with `--grpc-restricted-protocol=…:forebay=KEY` looks for the key."""

MAX_METADATA_BYTES = 1024 * 1024
"""Triton sends a model's whole exception in a trailer."""

_SERVICE = "/inference.GRPCInferenceService/"
_STATUS = {status.value[0]: status for status in grpc.StatusCode}

Metadata = tuple[tuple[str, str], ...]


class TritonError(Exception):
    """A call of Triton that has no reply.

    Attributes:
        code: Triton's status; UNAVAILABLE if it cannot be reached.
        message: why; never empty.
        too_large: it replied, with more than a reply may be.
    """

    def __init__(self, failure: Failure) -> None:
        self.code: grpc.StatusCode = _STATUS.get(failure.code, grpc.StatusCode.UNKNOWN)
        self.message = failure.message or self.code.name
        self.too_large = failure.too_large
        super().__init__(f"{self.code.name}: {self.message}")


class TritonClient:
    """One connection to one Triton.

    Attributes:
        shares_memory: whether this Triton sees the shared memory of this machine.
    """

    def __init__(
        self, address: str, model: str, access_key: str = "", shares_memory: bool = True
    ) -> None:
        """Connects with the first call.

        Args:
            address: `host:port`.
            model: the one model it serves.
            access_key: what this Triton asks of its callers; empty if nothing.
            shares_memory: whether it sees this machine's shared memory.
        """
        self._channel = UnaryChannel(address, MAX_GRPC_MESSAGE_BYTES, MAX_METADATA_BYTES)
        self._model = model
        self.address = address
        self._key_header = (
            literal_fields([(ACCESS_KEY_HEADER, access_key.encode())]) if access_key else b""
        )
        self._infer_headers = self._headers("ModelInfer")
        self.shares_memory = shares_memory
        self._regions: set[str] = set()
        self._registering = asyncio.Lock()

    async def infer(self, body: bytes, metadata: Metadata | None = None) -> bytes:
        """Runs a serialised ModelInferRequest; the result is a serialised ModelInferResponse.

        Raises:
            TritonError: with Triton's status and message.
        """
        headers = self._infer_headers
        if metadata:
            headers += literal_fields((k.encode(), v.encode()) for k, v in metadata)
        try:
            return await self._channel.call(headers, body)
        except CallFailedError as error:
            raise TritonError(error.failure) from error

    async def config(self) -> bytes:
        """The model's completed configuration, a serialised ModelConfigResponse."""
        return await self._ask("ModelConfig", triton.ModelConfigRequest(name=self._model))

    async def metadata(self) -> bytes:
        """The model's inputs and outputs, a serialised ModelMetadataResponse."""
        return await self._ask("ModelMetadata", triton.ModelMetadataRequest(name=self._model))

    async def statistics(self) -> bytes:
        """The model's statistics, a serialised ModelStatisticsResponse."""
        return await self._ask("ModelStatistics", triton.ModelStatisticsRequest(name=self._model))

    async def is_ready(self) -> bool:
        """Whether the model is loaded."""
        answer = await self._ask("ModelReady", triton.ModelReadyRequest(name=self._model))
        return bool(triton.ModelReadyResponse.FromString(answer).ready)

    async def use_region(self, name: str, size: int) -> None:
        """Makes a shared memory object known to this Triton, once.

        Raises:
            TritonError: if Triton cannot open it.
        """
        if name in self._regions:
            return
        request = triton.SystemSharedMemoryRegisterRequest(
            name=name, key=f"/{name}", offset=0, byte_size=size
        )
        async with self._registering:
            if name in self._regions:
                return
            try:
                await self._ask("SystemSharedMemoryRegister", request)
            except TritonError as error:
                # Known from before its agent was started anew; names are never used twice.
                if "already" not in error.message:
                    raise
            self._regions.add(name)

    async def forget_region(self, name: str) -> None:
        """Has this Triton let go of a shared memory object."""
        if name in self._regions:
            self._regions.discard(name)
            await self._ask(
                "SystemSharedMemoryUnregister",
                triton.SystemSharedMemoryUnregisterRequest(name=name),
            )

    def regions(self) -> list[str]:
        """The shared memory objects this Triton knows."""
        return list(self._regions)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    def _headers(self, method: str) -> bytes:
        return self._channel.header_block(f"{_SERVICE}{method}") + self._key_header

    async def _ask(self, method: str, request: object, timeout_s: float = 10.0) -> bytes:
        headers = self._headers(method)
        body: bytes = request.SerializeToString()  # type: ignore[attr-defined]
        try:
            async with asyncio.timeout(timeout_s):
                return await self._channel.call(headers, body)
        except CallFailedError as error:
            raise TritonError(error.failure) from error
        except TimeoutError as error:
            why = f"{method} was not answered in {timeout_s:g} s"
            raise TritonError(Failure(DEADLINE_EXCEEDED, why)) from error
