"""What a router answers that has not reached NATS yet."""

import grpc
import pytest

from services.router.directory import DeploymentDirectory
from services.router.open_inference import OpenInferenceServicer
from services.wire.nats_link import NatsLink
from services.wire.triton_stubs import service_pb2 as triton
from services.wire.triton_stubs import service_pb2_grpc as triton_grpc


async def test_no_deployment_is_called_unknown_before_the_deployments_are_known() -> None:
    link = NatsLink("router", "nats://127.0.0.1:1")
    servicer = OpenInferenceServicer(link, DeploymentDirectory(link), "test", lambda: False)
    server = grpc.aio.server()
    triton_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = triton_grpc.GRPCInferenceServiceStub(channel)
            for method, request in (
                (stub.ModelReady, triton.ModelReadyRequest(name="a")),
                (stub.ModelMetadata, triton.ModelMetadataRequest(name="a")),
                (stub.ModelConfig, triton.ModelConfigRequest(name="a")),
                (stub.ModelStatistics, triton.ModelStatisticsRequest(name="a")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(request)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                assert "has not reached NATS" in (caught.value.details() or "")
    finally:
        await server.stop(0)
