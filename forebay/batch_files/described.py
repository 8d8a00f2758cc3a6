"""What a deployment's model takes, asked of the router."""

import asyncio
import time

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from forebay.batch_files.schema import ModelSchema, schema_of
from forebay.errors import from_rpc_error
from services.wire.channels import open_channel

_ONE_CALL_S = 30.0
_PAUSE_S = 0.5


async def schema_at(address: str, deployment: str, timeout_s: float) -> ModelSchema:
    """The schema of a deployment's model, as soon as a replica has said it.

    Args:
        address: of the router.
        deployment: its name; one without replicas is woken.
        timeout_s: seconds to wait for its first replica, and for a mesh that is away.

    Raises:
        DeploymentNotFoundError: if there is no such deployment.
        UnavailableError: if nothing has said it by then; the text says why.
    """
    end_s = time.monotonic() + timeout_s
    request = service_pb2.ModelConfigRequest(name=deployment)
    async with open_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            left_s = max(0.1, end_s - time.monotonic())
            try:
                answer = await stub.ModelConfig(request, timeout=min(left_s, _ONE_CALL_S))
            except grpc.RpcError as error:
                passing = error.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
                if not passing or time.monotonic() + _PAUSE_S > end_s:
                    raise from_rpc_error(error, address, None) from None
            else:
                return schema_of(answer.config)
            await asyncio.sleep(_PAUSE_S)
