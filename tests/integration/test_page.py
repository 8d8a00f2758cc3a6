"""The built-in page of a real metrics service, and what it asks for."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forebay.v1.scaling_pb2 import ScaleDecision
from services.wire import subjects
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually
from tests.support.metrics_page import ask, told


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


async def test_serves_a_closed_document(mesh: ControlPlane) -> None:
    status, headers, body = await ask(mesh, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "<main" in body


async def test_tells_of_a_deployment(mesh: ControlPlane) -> None:
    await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=2)

    async def both_ready() -> dict[str, Any]:
        answer = await told(mesh, "/api/deployments/add")
        assert answer["history"]["values"]["ready"][-1] == 2
        assert answer["history"]["values"]["target"][-1] == 2
        assert answer["history"]["values"]["assigned"][-1] == 2
        assert answer["history"]["values"]["queued"][-1] == 0
        assert answer["decisions"]
        assert len(answer["replicas"]) == 2
        return answer

    answer = await eventually(both_ready)
    assert answer["wanted"]["target"] == 2
    decision = answer["decisions"][0]
    assert (decision["before"], decision["after"], decision["rule"]) == (0, 2, "fixed")
    assert "2 replicas" in decision["reason"]
    # Nothing has ended, so how long it took is not known.
    assert "service_time_p50_s" not in answer["history"]["values"]


async def test_gives_only_what_is_new(mesh: ControlPlane) -> None:
    async def some() -> dict[str, Any]:
        answer = await told(mesh, "/api/mesh")
        assert answer["history"]["next_tick"] >= 1
        return answer

    first = await eventually(some)
    since = first["history"]["next_tick"] - 1

    async def more() -> dict[str, Any]:
        answer = await told(mesh, f"/api/mesh?since={since}")
        assert answer["history"]["times_s"]
        return answer

    answer = await eventually(more)
    assert answer["history"]["first_tick"] == since + 1
    assert answer["run"] == first["run"]


async def test_the_mesh_lists_deployments_nodes_and_gpus(mesh: ControlPlane) -> None:
    await mesh.agent(Agent("node-a", gpus=("GPU-1", "GPU-2")))
    await mesh.create("add", replicas=1)

    async def listed() -> dict[str, Any]:
        answer = await told(mesh, "/api/mesh")
        assert [row["name"] for row in answer["deployments"]] == ["add"]
        assert [row["gpus"] for row in answer["nodes"]] == [2]
        assert answer["history"]["values"]["gpu_memory_total_bytes"][-1] == 32 << 30
        return answer

    answer = await eventually(listed)
    assert (answer["deployment_count"], answer["node_count"]) == (1, 1)

    async def told_of_the_node() -> bool:
        # A gap where the tick found it silent.
        node = await told(mesh, "/api/nodes/node-a")
        assert [gpu["uuid"] for gpu in node["gpus"]] == ["GPU-1", "GPU-2"]
        return bool(node["gpus"][0]["values"]["utilization_ratio"][-1] == 0)

    await eventually(told_of_the_node)


async def test_a_queue_that_nobody_tells_of_is_a_gap(mesh: ControlPlane) -> None:
    await mesh.create("add", replicas=0)

    async def known() -> bool:
        answer = await told(mesh, "/api/deployments/add")
        return answer["history"]["values"]["queued"][-1] == 0

    await eventually(known)
    mesh.nats.stop()

    async def unknown() -> bool:
        answer = await told(mesh, "/api/deployments/add")
        assert answer["history"]["values"]["queued"][-1] is None
        assert answer["deployment"]["trouble"] == ["queue not known"]
        return not answer["nats_connected"]

    try:
        await eventually(unknown, timeout_s=40)
    finally:
        mesh.nats.start()
    await eventually(known, timeout_s=40)


async def test_a_decision_that_cannot_be_read_hides_no_other(mesh: ControlPlane) -> None:
    await mesh.create("add", replicas=0)
    async with linked(mesh.nats.url) as link:
        await link.jetstream.publish(subjects.decision("add"), b"\xff\xff")
        good = ScaleDecision(target_after=7, reason="<b>many</b>" * 100)
        good.decide_time.GetCurrentTime()
        await link.jetstream.publish(subjects.decision("add"), good.SerializeToString())

    async def listed() -> dict[str, Any]:
        answer = await told(mesh, "/api/deployments/add")
        return {d["after"]: d for d in answer["decisions"]}[7]

    try:
        decision = await eventually(listed)
        assert len(decision["reason"]) == 300
    finally:
        await _purge(mesh)


async def _purge(mesh: ControlPlane) -> None:
    """The harness looks at all decisions when it ends: those above are not the autoscaler's."""
    async with linked(mesh.nats.url) as link:
        await link.jetstream.purge_stream("FOREBAY_DECISIONS")


async def test_what_is_not_there_is_not_found(mesh: ControlPlane) -> None:
    for path in (
        "/api/deployments/none",
        "/api/deployments/%3Cimg%20src=x%3E",
        "/api/deployments/..%2F..%2Fetc%2Fpasswd",
        "/api/deployments/",
        "/api/deployments",
        "/api/nodes/none",
        "/api/mesh/add",
        "/api/",
        "/api",
        "/page.js",
        "/../page.js",
    ):
        status, _, body = await ask(mesh, path)
        assert (status, "<img" in body) == (404, False), path


async def test_an_absurd_instant_asks_for_everything(mesh: ControlPlane) -> None:
    for since in ("", "x", "-5", "9" * 400, "1e3", "%00"):
        answer = await told(mesh, f"/api/mesh?since={since}")
        assert answer["history"]["first_tick"] == 0, since
