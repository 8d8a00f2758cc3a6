"""The standard gRPC health service and reflection, for every server of the mesh."""

import asyncio
from collections.abc import Callable

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

FOLLOW_INTERVAL_S = 0.1


class Health:
    """Serving status by service name; the empty name stands for the whole server."""

    def __init__(self, server: grpc.aio.Server, service_names: list[str]) -> None:
        """Adds health and reflection to a server; nothing serves until `set_serving(True)`."""
        self._names = ["", *service_names]
        self._servicer = health.aio.HealthServicer()
        self._serving: bool | None = None
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        # enable_server_reflection would take servers other than grpcio's own for blocking ones.
        names = [*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), server
        )

    async def set_serving(self, serving: bool) -> None:
        """Tells everyone who watches whether the server serves."""
        if serving == self._serving:
            return
        self._serving = serving
        status = health_pb2.HealthCheckResponse.ServingStatus
        for name in self._names:
            await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def set_service(self, name: str, serving: bool) -> None:
        """Tells everyone who watches one of the services whether it serves.

        It is for a server that answers while what it is there for cannot be done.
        """
        status = health_pb2.HealthCheckResponse.ServingStatus
        await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def follow(self, is_serving: Callable[[], bool]) -> None:
        """Tells everyone who watches whenever `is_serving` changes, for ever."""
        while True:
            await self.set_serving(is_serving())
            await asyncio.sleep(FOLLOW_INTERVAL_S)
