"""The built-in page in a real browser: its plots have points, and what it shows stays text."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forebay.v1.scaling_pb2 import ScaleDecision
from services.wire import subjects
from tests.support import browser as browsers
from tests.support.agent import Agent
from tests.support.browser import Browser, browser
from tests.support.control_plane import ControlPlane, control_plane, linked
from tests.support.eventually import eventually
from tests.support.metrics_page import told

HOSTILE = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
TIMEOUT_S = 30.0

# Points of each series of a plot, by the series' name.
POINTS = """
Object.fromEntries([...document.querySelectorAll('[data-chart="%s"] [data-series]')].map(
  (path) => [path.dataset.series, (path.getAttribute("d").match(/[ML]/g) ?? []).length]))
"""

# Where the first mark of a decision is.
MARK = """
(() => {
  const box = document.querySelector('[data-chart="Replicas"] line.mark')?.getBoundingClientRect();
  return box && {x: box.x, y: box.y + 20};
})()
"""
TIP = "document.getElementById('tip').hidden || document.getElementById('tip').textContent"

pytestmark = pytest.mark.skipif(browsers.CHROMIUM is None, reason=browsers.ABSENT)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as made:
        yield made


async def points(page: Browser, chart: str) -> dict[str, int]:
    return await page.evaluate(POINTS % chart) or {}


async def test_plots_have_points_and_marks_their_reasons(
    mesh: ControlPlane, tmp_path: Path
) -> None:
    await mesh.agent(Agent("node-a"))
    await mesh.create("add", replicas=2)

    async def known() -> bool:
        return bool(await told(mesh, "/api/deployments/add"))

    # Until the page's next look at the mesh it says that there is no such deployment.
    await eventually(known, timeout_s=TIMEOUT_S)
    url = f"http://{mesh.http}/?minutes=5#/deployments/add"
    async with browser(tmp_path / "browser", url) as page:

        async def drawn() -> dict[str, Any]:
            replicas = await points(page, "Replicas")
            assert replicas["ready"] >= 2
            assert replicas["target"] >= 2
            assert (await points(page, "Queued and ongoing"))["queued"] >= 2
            return await page.evaluate(MARK)

        mark = await eventually(drawn, timeout_s=TIMEOUT_S)
        # Nothing has ended: that is a gap, not a line along the bottom.
        assert await points(page, "Service time") == {"p50": 0, "p95": 0, "p99": 0}

        async def why_is_listed() -> bool:
            return "2 replicas, fixed" in await page.document()

        await eventually(why_is_listed, timeout_s=TIMEOUT_S)

        async def told_why() -> bool:
            # The mark moves as time passes.
            at = await page.evaluate(MARK) or mark
            await page.point(at["x"], at["y"])
            return "0 → 2: 2 replicas, fixed" in str(await page.evaluate(TIP))

        await eventually(told_why, timeout_s=TIMEOUT_S)
        assert page.complaints == []


async def test_what_it_shows_stays_text(mesh: ControlPlane, tmp_path: Path) -> None:
    await mesh.agent(Agent("node-a", gpus=(HOSTILE,)))
    await mesh.create("add", replicas=1)
    async with linked(mesh.nats.url) as link:
        decision = ScaleDecision(target_after=7, reason=HOSTILE)
        decision.decide_time.GetCurrentTime()
        await link.jetstream.publish(subjects.decision("add"), decision.SerializeToString())

        async def listed() -> bool:
            gpus = (await told(mesh, "/api/nodes/node-a"))["gpus"]
            made = (await told(mesh, "/api/mesh"))["decisions"]
            return bool(gpus) and any(d["after"] == 7 for d in made)

        await eventually(listed, timeout_s=TIMEOUT_S)
        async with browser(tmp_path / "browser", f"http://{mesh.http}/") as page:
            for view in ("#/", "#/nodes/node-a"):
                await page.evaluate(f"location.hash = '{view}'")

                async def shown() -> bool:
                    return "&lt;img src=x" in await page.document()

                await eventually(shown, timeout_s=TIMEOUT_S)
                assert await page.evaluate("document.querySelector('img')") is None
                assert await page.evaluate("document.title") != "taken"
            assert page.complaints == []
        # The harness looks at all decisions when it ends: this one is not the autoscaler's.
        await link.jetstream.purge_stream("FOREBAY_DECISIONS")


async def test_says_that_a_deployment_is_not_there(mesh: ControlPlane, tmp_path: Path) -> None:
    url = f"http://{mesh.http}/#/deployments/none"
    async with browser(tmp_path / "browser", url) as page:

        async def said() -> bool:
            return "there is no such deployment" in await page.document()

        await eventually(said, timeout_s=TIMEOUT_S)
