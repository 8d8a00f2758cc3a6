"""ModelService: uploads of models."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import nats.errors

from forebay.v1 import model_pb2, model_pb2_grpc
from services.autoscaler.model_store import ModelStore
from services.wire.names import quoted
from services.wire.status import StatusError, invalid_argument, nats_away

MAX_CHUNK_BYTES = 1 << 20


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Keeps models, addressed by their content."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def UploadModel(
        self,
        requests: AsyncIterator[model_pb2.UploadModelRequest],
        context: grpc.aio.ServicerContext,
    ) -> model_pb2.UploadModelResponse:
        """Stores a model archive."""
        try:
            first = await anext(aiter(requests), None)
            if first is None or first.WhichOneof("message") != "model":
                raise invalid_argument("the first message must carry `model`")
            model = await self._store.take(first.model, _chunks(requests))
            return model_pb2.UploadModelResponse(model=model)
        except StatusError as error:
            await context.abort(error.code, str(error))
        except (nats.errors.Error, TimeoutError) as error:
            await context.abort(*nats_away(error))
        raise AssertionError("abort raises")

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> model_pb2.GetModelResponse:
        """Returns what is known of a model."""
        try:
            model = await self._store.find(request.digest)
            if model is None:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND, f"no model {quoted(request.digest)} was uploaded"
                )
            return model_pb2.GetModelResponse(model=model)
        except StatusError as error:
            await context.abort(error.code, str(error))
        except (nats.errors.Error, TimeoutError) as error:
            await context.abort(*nats_away(error))
        raise AssertionError("abort raises")


async def _chunks(requests: AsyncIterator[model_pb2.UploadModelRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("message") != "chunk":
            raise invalid_argument("after the first message come only chunks")
        if len(request.chunk) > MAX_CHUNK_BYTES:
            raise invalid_argument(
                f"a chunk of {len(request.chunk)} bytes; at most {MAX_CHUNK_BYTES} are taken"
            )
        yield request.chunk
