"""Talks to one Triton over gRPC. Bodies pass as bytes."""

import asyncio

import grpc.aio

from services.wire.channels import CHANNEL_OPTIONS
from services.wire.triton_stubs import service_pb2 as triton

MAX_METADATA_BYTES = 1024 * 1024

_SERVICE = "/inference.GRPCInferenceService/"

Metadata = tuple[tuple[str, str], ...]


class TritonClient:
    """One channel to one Triton."""

    def __init__(self, address: str, model: str) -> None:
        """Opens a channel; nothing is sent yet."""
        # A pool of its own: channels to a port that a former Triton had must not be shared.
        options = [
            *CHANNEL_OPTIONS,
            ("grpc.use_local_subchannel_pool", 1),
            # Triton sends a model's whole exception in a trailer.
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._model = model
        self._infer = self._channel.unary_unary(f"{_SERVICE}ModelInfer")
        self._regions: set[str] = set()
        self._registering = asyncio.Lock()

    async def infer(self, body: bytes, metadata: Metadata | None = None) -> bytes:
        """Runs a serialised ModelInferRequest; the result is a serialised ModelInferResponse.

        Raises:
            grpc.aio.AioRpcError: with Triton's status and message.
        """
        response: bytes = await self._infer(body, metadata=metadata)
        return response

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
            grpc.aio.AioRpcError: if Triton cannot open it.
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
            except grpc.aio.AioRpcError as error:
                # Known from before its agent was started anew; names are never used twice.
                if "already" not in (error.details() or ""):
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
        """Closes the channel."""
        await self._channel.close()

    async def _ask(self, method: str, request: object, timeout_s: float = 10.0) -> bytes:
        call = self._channel.unary_unary(f"{_SERVICE}{method}")
        answer: bytes = await call(request.SerializeToString(), timeout=timeout_s)  # type: ignore[attr-defined]
        return answer
