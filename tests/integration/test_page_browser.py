"""The built-in page in a real browser: its plots have points, and what it shows stays text."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.v1.scaling_pb2 import ScaleDecision
from services.wire import subjects
from tests.support.agent import Agent
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually
from tests.support.metrics_page import told

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"

# A browser takes its time on a busy machine.
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no browser: install Debian's package chromium"
)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


async def shown(mesh: ControlPlane, tmp_path: Path, view: str) -> str:
    """The document after the browser has drawn a view, without any error or refusal."""
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'browser'}"),
        *("--enable-logging=stderr", "--virtual-time-budget=6000", "--dump-dom"),
        f"http://{mesh.http}/?minutes=5#/{view}",
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said
    return done.stdout


def points(document: str, chart: str) -> dict[str, int]:
    """How many points each series of a plot has."""
    (svg,) = re.findall(rf'<svg[^>]*data-chart="{chart}".*?</svg>', document, re.DOTALL)
    paths = re.findall(r"<path[^>]*>", svg)
    found: dict[str, int] = {}
    for path in paths:
        name = re.search(r'data-series="([^"]*)"', path)
        drawn = re.search(r' d="([^"]*)"', path)
        if name and drawn:
            found[name.group(1)] = len(re.findall(r"[ML]", drawn.group(1)))
    return found


async def test_plots_of_a_deployment_have_points(mesh: ControlPlane, tmp_path: Path) -> None:
    await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=2)

    async def some_points() -> bool:
        answer = await told(mesh, "/api/deployments/add")
        ready = answer["history"]["values"].get("ready", [])
        return ready.count(2) >= 2 and bool(answer["decisions"])

    await eventually(some_points, timeout_s=20)
    document = await shown(mesh, tmp_path, "deployments/add")
    replicas = points(document, "Replicas")
    assert replicas["ready"] >= 2
    assert replicas["target"] >= 2
    assert points(document, "Queued and ongoing")["queued"] >= 2
    # Nothing has ended: that is a gap, not a line along the bottom.
    assert points(document, "Service time") == {"p50": 0, "p95": 0, "p99": 0}
    assert 'class="mark"' in document
    assert "2 replicas, fixed" in document


async def test_what_it_shows_stays_text(mesh: ControlPlane, tmp_path: Path) -> None:
    await mesh.agent(Agent("node-a", gpus=(HOSTILE,)))
    await mesh.create("add", replicas=1)
    async with linked(mesh.nats.url) as link:
        decision = ScaleDecision(target_after=7, reason=HOSTILE)
        decision.decide_time.GetCurrentTime()
        await link.jetstream.publish(subjects.decision("add"), decision.SerializeToString())

        async def listed() -> bool:
            answer = await told(mesh, "/api/mesh")
            gpus = (await told(mesh, "/api/nodes/node-a"))["gpus"]
            return bool(gpus) and any(d["after"] == 7 for d in answer["decisions"])

        await eventually(listed, timeout_s=20)
        documents = [await shown(mesh, tmp_path, view) for view in ("", "nodes/node-a")]
        # The harness looks at all decisions when it ends: this one is not the autoscaler's.
        await link.jetstream.purge_stream("FOREBAY_DECISIONS")
    for document in documents:
        assert "<img" not in document
        assert "taken</title>" not in document
    assert "&lt;img src=x" in documents[0]
