"""What callers see while parts of the mesh are killed under them."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

import forebay
from forebay.v1.metrics_pb2 import GetSnapshotRequest
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.node_pb2 import ReplicaStatus
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp

ACK_WAIT_S = 3.0
REQUEST_TIMEOUT_S = 60
"""Far more than it takes to notice what is gone and to begin again."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("faults")
    flags = ("--nodes", "2", "--slots", "2", "--ack-wait-s", f"{ACK_WAIT_S:g}")
    with ForebayUp(directory / "state", *flags) as up:
        up.forebay(
            "deploy",
            write_chaos(
                directory,
                replicas=2,
                max_ongoing_requests=1,
                request_timeout_s=REQUEST_TIMEOUT_S,
            ),
        ).ok()
        yield up


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


def tritons(mesh: ForebayUp) -> list[psutil.Process]:
    """Every tritonserver of the mesh."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "tritonserver" and str(mesh.state_dir) in line:
            found.append(process)
    return found


async def replicas(mesh: ForebayUp, deployment: str = "chaos") -> dict[str, ReplicaStatus]:
    """The deployment's replicas as last reported, by node and id."""
    async with grpc.aio.insecure_channel(mesh.mesh["metrics"]) as channel:
        answer = await MetricsServiceStub(channel).GetSnapshot(GetSnapshotRequest(), timeout=30)
    return {
        f"{node.name.removeprefix('nodes/')} {replica.replica_id}": replica
        for node in answer.snapshot.nodes
        for replica in node.replicas
        if replica.deployment == f"deployments/{deployment}"
    }


async def settled(mesh: ForebayUp) -> None:
    """Waits until both replicas answer again, and are known to."""

    async def both_ready() -> bool:
        try:
            found = await replicas(mesh)
        except grpc.aio.AioRpcError:
            return False
        return [r.state for r in found.values()] == [ReplicaStatus.STATE_READY] * 2

    await eventually(both_ready, timeout_s=90)


async def busy_nodes(mesh: ForebayUp) -> list[str]:
    found = await replicas(mesh)
    return [key.split()[0] for key, replica in found.items() if replica.ongoing_count]


async def both_busy(mesh: ForebayUp) -> bool:
    return len(await busy_nodes(mesh)) == 2


async def test_a_request_survives_the_death_of_its_agent(mesh: ForebayUp) -> None:
    await settled(mesh)
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        call = asyncio.create_task(client.infer("chaos", do("wait:5"), timeout_s=60))
        busy = await eventually(lambda: busy_nodes(mesh))
        killed_s = time.monotonic()
        mesh.kill(busy[0])
        result = await call
        assert result["SAID"][0] == b"wait:5"
        # The ack wait, and the time that the model itself takes, twice: not the whole deadline.
        assert time.monotonic() - killed_s < 2 * (ACK_WAIT_S + 5) + 4
    await settled(mesh)


async def test_an_agent_that_was_killed_finds_its_tritons_again(mesh: ForebayUp) -> None:
    await settled(mesh)
    before = {process.pid for process in tritons(mesh)}
    node = min(await replicas(mesh)).split()[0]
    agent = mesh.pid(node)
    mesh.kill(node)
    await eventually(lambda: mesh.pid(node) != agent, timeout_s=60)
    await settled(mesh)
    assert {process.pid for process in tritons(mesh)} == before


async def test_a_request_survives_the_death_of_its_triton(mesh: ForebayUp) -> None:
    await settled(mesh)
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        calls = [
            asyncio.create_task(client.infer("chaos", do(f"wait:{5 + i}"), timeout_s=60))
            for i in range(2)
        ]
        await eventually(lambda: both_busy(mesh))
        killed_s = time.monotonic()
        tritons(mesh)[0].kill()
        results = await asyncio.gather(*calls)
        assert [r["SAID"][0] for r in results] == [b"wait:5", b"wait:6"]
        assert time.monotonic() - killed_s < 40
    await settled(mesh)


async def test_a_request_that_kills_every_replica_is_ended_and_the_mesh_recovers(
    mesh: ForebayUp,
) -> None:
    await settled(mesh)
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.PoisonRequestError, match="3 attempts at this request ended"):
            await client.infer("chaos", do("kill"), timeout_s=60)
        result = await client.infer("chaos", do("still here"), timeout_s=60)
        assert result["SAID"][0] == b"still here"
    await settled(mesh)


async def test_a_model_process_that_exits_ends_its_request_only(mesh: ForebayUp) -> None:
    await settled(mesh)
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.PoisonRequestError):
            await client.infer("chaos", do("exit"), timeout_s=60)
        result = await client.infer("chaos", do("still here"), timeout_s=60)
        assert result["SAID"][0] == b"still here"
    await settled(mesh)


async def test_a_model_that_raises_says_so_to_the_caller(mesh: ForebayUp) -> None:
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.ModelError, match="the model was told to raise"):
            await client.infer("chaos", do("raise"), timeout_s=60)


async def test_a_model_that_says_unavailable_keeps_its_triton(mesh: ForebayUp) -> None:
    await settled(mesh)
    before = {process.pid for process in tritons(mesh)}
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.UnavailableError, match="the database is down"):
            await client.infer("chaos", do("busy"), timeout_s=60)
    assert {process.pid for process in tritons(mesh)} == before


async def test_no_caller_can_have_a_triton_killed_by_what_it_writes(mesh: ForebayUp) -> None:
    await settled(mesh)
    before = {process.pid for process in tritons(mesh)}
    words = "Stub process 'chaos_0' is not healthy."
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.InvalidRequestError, match="Stub process"):
            await client.infer("chaos", {words: np.array(["x"], dtype=object)}, timeout_s=60)
    assert {process.pid for process in tritons(mesh)} == before


async def test_a_long_exception_reaches_the_caller_in_part_and_as_what_it_is(
    mesh: ForebayUp,
) -> None:
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        for length in ("123456", "1234567890" * 3):
            with pytest.raises(forebay.ModelError, match="the model was told to raise"):
                await client.infer("chaos", do(f"raise:{length}"), timeout_s=60)


async def test_an_answer_over_the_limit_is_an_error_and_not_silence(mesh: ForebayUp) -> None:
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        with pytest.raises(forebay.ModelError, match="the limit is 8388608"):
            await client.infer("chaos", do("big:9000000"), timeout_s=60)
        result = await client.infer("chaos", do("big:8000000"), timeout_s=60)
        assert len(result["SAID"][0]) == 8_000_000


async def test_tritons_outlive_an_agent_that_is_killed_while_nats_is_away(
    mesh: ForebayUp,
) -> None:
    await settled(mesh)
    before = {process.pid for process in tritons(mesh)}
    node = min(await replicas(mesh)).split()[0]
    agent, nats = mesh.pid(node), psutil.Process(mesh.pid("nats"))
    nats.suspend()
    try:
        log = Path(mesh.state_dir / "logs" / f"{node}.log")
        adopted = log.read_text().count("replica.adopted")
        mesh.kill(node)
        await eventually(lambda: mesh.pid(node) != agent, timeout_s=60)
        await eventually(lambda: log.read_text().count("replica.adopted") > adopted, timeout_s=60)
    finally:
        nats.resume()
    await settled(mesh)
    assert {process.pid for process in tritons(mesh)} == before


async def test_callers_get_an_answer_or_unavailable_while_nats_is_down(mesh: ForebayUp) -> None:
    await settled(mesh)
    nats = psutil.Process(mesh.pid("nats"))
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        waiting = [
            asyncio.create_task(client.infer("chaos", do("wait:3"), timeout_s=60)) for _ in range(4)
        ]
        await eventually(lambda: busy_nodes(mesh))
        nats.kill()
        during = await asyncio.gather(
            *(client.infer("chaos", do(f"{i}"), timeout_s=60) for i in range(8)),
            return_exceptions=True,
        )
        for outcome in (*during, *await asyncio.gather(*waiting, return_exceptions=True)):
            assert isinstance(outcome, forebay.InferResult | forebay.UnavailableError), outcome

        async def works() -> bool:
            try:
                return bool(await client.infer("chaos", do("back"), timeout_s=10))
            except (forebay.UnavailableError, forebay.DeadlineExceededError):
                return False

        await eventually(works, timeout_s=60)
    await settled(mesh)


async def test_many_calls_survive_kills_of_everything_but_their_router(mesh: ForebayUp) -> None:
    await settled(mesh)
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        calls = [
            asyncio.create_task(client.infer("chaos", do(f"wait:0.1{i}"), timeout_s=60))
            for i in range(100)
        ]
        for name in ("node-1", "autoscaler", "node-2", "metrics"):
            # A few more, unless there are few left.
            wanted = min(sum(call.done() for call in calls) + 5, len(calls) - 5)
            await eventually(lambda: sum(c.done() for c in calls) > wanted, timeout_s=60)  # noqa: B023
            mesh.kill(name)
        results = await asyncio.gather(*calls)
        assert [r["SAID"][0] for r in results] == [f"wait:0.1{i}".encode() for i in range(100)]
    await settled(mesh)


async def test_a_router_that_is_told_to_stop_answers_what_it_has_accepted(mesh: ForebayUp) -> None:
    await settled(mesh)
    router = mesh.pid("router")
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        calls = [
            asyncio.create_task(client.infer("chaos", do("wait:8"), timeout_s=60)) for _ in range(2)
        ]

        async def both_accepted() -> bool:
            return len(await busy_nodes(mesh)) == len(calls)

        await eventually(both_accepted)
        os.kill(router, signal.SIGTERM)
        results = await asyncio.gather(*calls)
        assert [r["SAID"][0] for r in results] == [b"wait:8"] * 2
    await eventually(lambda: not psutil.pid_exists(router), timeout_s=60)

    async def works() -> bool:
        async with forebay.AsyncClient(mesh.mesh["router"]) as client:
            try:
                return bool(await client.infer("chaos", do("back"), timeout_s=10))
            except (forebay.UnavailableError, forebay.DeadlineExceededError):
                return False

    await eventually(works, timeout_s=60)


async def test_a_hanging_model_costs_its_caller_the_deadline_and_its_triton_its_life(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    file = write_chaos(tmp_path, name="hanging", request_timeout_s=8, max_ongoing_requests=1)
    mesh.forebay("deploy", file).ok()
    try:
        async with forebay.AsyncClient(mesh.mesh["router"]) as client:
            started_s = time.monotonic()
            with pytest.raises(forebay.DeadlineExceededError):
                await client.infer("hanging", do("hang"), timeout_s=1.5)
            # Before the attempt has outlived its limit.
            assert time.monotonic() - started_s < 6
            # A caller with more time than an attempt may take is told as soon as it is over.
            with pytest.raises(forebay.DeadlineExceededError, match="request_timeout_s = 8"):
                await client.infer("hanging", do("hang"), timeout_s=60)
            # The slot comes back once the attempt has outlived its limit.
            result = await client.infer("hanging", do("free again"), timeout_s=60)
            assert result["SAID"][0] == b"free again"
    finally:
        mesh.forebay("delete", "hanging").ok()
