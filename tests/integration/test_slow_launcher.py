"""A launcher that takes calls and does not answer, or is another node's: the agent goes on."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.launcher_pb2 import (
    GetLauncherRequest,
    GetLauncherResponse,
    ListReplicasRequest,
    ListReplicasResponse,
    ReplicaContainer,
    StopReplicaRequest,
    StopReplicaResponse,
)
from forebay.v1.launcher_pb2_grpc import (
    LauncherServiceServicer,
    add_LauncherServiceServicer_to_server,
)
from services.node_agent.containers.container_runtime import ContainerRuntime
from services.node_agent.containers.launcher_link import LauncherLink
from services.node_agent.containers.record import ContainerRecord
from services.node_agent.runtime import Order, RuntimeAwayError
from tests.support.eventually import eventually

LEFT = ReplicaContainer(replica_id="left-00000001", state=ReplicaContainer.STATE_RUNNING)


class Launcher(LauncherServiceServicer):
    """Answers for a node, or hangs.

    Attributes:
        node: it says it is of; empty: it hangs.
        stopped: replicas it was told to stop.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.stopped: list[str] = []

    async def GetLauncher(self, _: GetLauncherRequest, __: object) -> GetLauncherResponse:
        if not self.node:
            await asyncio.Event().wait()
        return GetLauncherResponse(node=self.node, usable=True)

    async def ListReplicas(self, _: ListReplicasRequest, __: object) -> ListReplicasResponse:
        return ListReplicasResponse(containers=[LEFT])

    async def StopReplica(self, request: StopReplicaRequest, _: object) -> StopReplicaResponse:
        self.stopped.append(request.replica_id)
        return StopReplicaResponse()


@asynccontextmanager
async def runtime_of(launcher: Launcher) -> AsyncIterator[ContainerRuntime]:
    # A socket's path is short.
    socket = Path("/tmp") / f"{secrets.token_hex(4)}.sock"
    server = grpc.aio.server()
    add_LauncherServiceServicer_to_server(launcher, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    runtime = ContainerRuntime(LauncherLink(socket), "node-1", {}, lambda: None)
    try:
        yield runtime
    finally:
        await runtime.close()
        await server.stop(0)


async def test_a_launcher_that_hangs_holds_up_neither_start_nor_survey(tmp_path: Path) -> None:
    async with runtime_of(Launcher("")) as runtime:
        began_s = time.monotonic()
        await runtime.open()
        assert await runtime.survey(dict) == {}
        # It is given 3 s; what asks for more has 10 s, or no limit.
        assert time.monotonic() - began_s < 9
        assert "did not answer in time" in runtime.message
        with pytest.raises(RuntimeAwayError):
            await runtime.prepare(Order(Assignment(), "any", tmp_path, tmp_path, print))
        # What a former agent wrote down is gone on with all the same.
        ContainerRecord("k" * 32, "sha256:1", "container", "127.0.0.1:1").write(tmp_path)
        assert await runtime.is_running(tmp_path)


async def test_the_launcher_of_another_node_keeps_its_containers() -> None:
    launcher = Launcher("node-2")
    async with runtime_of(launcher) as runtime:
        await runtime.open()
        assert "is of node node-2" in runtime.message
        assert await runtime.survey(dict) == {}
        assert not launcher.stopped


async def test_what_belongs_to_no_replica_is_stopped_once_its_launcher_answers() -> None:
    launcher = Launcher("node-1")
    async with runtime_of(launcher) as runtime:
        await runtime.open()
        assert not runtime.message
        assert "left-00000001" in await runtime.survey(lambda: {"left-00000001": None})
        assert not launcher.stopped
        await runtime.survey(dict)
        await eventually(lambda: launcher.stopped == ["left-00000001"])
