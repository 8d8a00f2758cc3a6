"""What Prometheus reads of a running mesh."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.autoscaler.main import serve as serve_autoscaler
from services.autoscaler.settings import AutoscalerSettings
from services.metrics.stream_sizes import STREAMS
from services.router.main import serve as serve_router
from services.router.settings import RouterSettings
from services.wire import streams, subjects, usage
from services.wire.tasks import streams as task_streams
from tests.support.agent import Agent
from tests.support.control_plane import LOOPBACK, ControlPlane, linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.prometheus_server import PrometheusServer
from tests.support.serving import serving

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """Metrics, and an autoscaler that is scraped."""
    with NatsServer(tmp_path / "nats") as nats:
        async with AsyncExitStack() as stack:
            made = ControlPlane(nats, tmp_path, stack)
            await made.start()
            await stack.enter_async_context(made.autoscaling(http_listen=LOOPBACK))
            yield made


def of_autoscaler(mesh: ControlPlane) -> str:
    """Where the autoscaler of the mesh is scraped."""
    return str(json.loads((mesh.tmp_path / "autoscaler.json").read_text())["autoscaler_http"])


async def scraped(address: str, accept: str = "") -> tuple[str, str]:
    """Text and content type."""

    def read() -> tuple[str, str]:
        request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode(), answer.headers["Content-Type"]

    return await asyncio.to_thread(read)


async def says(address: str, *lines: str) -> None:
    """Waits until a scrape has all lines."""

    async def has_them() -> None:
        text, _ = await scraped(address)
        missing = [line for line in lines if f"{line}\n" not in text]
        assert not missing, (missing, text)

    async def there() -> bool:
        await has_them()
        return True

    await eventually(there)


async def test_who_names_openmetrics_gets_it_and_others_get_text(mesh: ControlPlane) -> None:
    text, kind = await scraped(mesh.http, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert "forebay_nats_connected" in {f.name for f in text_string_to_metric_families(text)}
    for accept in ("", "text/plain", "*/*", "text/html,application/xml;q=0.9"):
        text, kind = await scraped(mesh.http, accept)
        assert kind.startswith("text/plain; version=0.0.4")
        assert "# EOF" not in text


async def test_the_leader_tells_what_it_decides_and_forgets_what_was_deleted(
    mesh: ControlPlane,
) -> None:
    address = of_autoscaler(mesh)
    await mesh.agent(Agent("node-a", slots=2))
    await mesh.create("add", replicas=3)
    await says(
        address,
        "forebay_autoscaler_leading 1.0",
        'forebay_target_replicas{deployment="add"} 3.0',
        'forebay_assigned_replicas{deployment="add"} 2.0',
        'forebay_unplaced_replicas{deployment="add"} 1.0',
        'forebay_scale_decisions_total{deployment="add",direction="up"} 1.0',
    )
    await mesh.update("add", "replicas", replicas=1)
    await says(address, 'forebay_scale_decisions_total{deployment="add",direction="down"} 1.0')
    await mesh.delete("add")

    async def gone() -> bool:
        return 'deployment="add"' not in (await scraped(address))[0]

    await eventually(gone)


async def test_a_standby_tells_nothing_until_it_leads(mesh: ControlPlane) -> None:
    await mesh.create("add", replicas=1)
    await says(of_autoscaler(mesh), "forebay_autoscaler_leading 1.0")
    async with serving(
        serve_autoscaler,
        AutoscalerSettings,
        mesh.tmp_path / "standby.json",
        nats_url=mesh.nats.url,
        listen=LOOPBACK,
        http_listen=LOOPBACK,
        metrics=mesh.metrics,
    ) as standby:
        address = standby["autoscaler_http"]
        await says(address, "forebay_autoscaler_leading 0.0", "forebay_nats_connected 1.0")
        assert "forebay_target_replicas{" not in (await scraped(address))[0]


async def test_streams_are_told_by_what_is_stored_in_them(mesh: ControlPlane) -> None:
    labels = f'{{stream="{streams.KEPT_REPLIES}"}}'
    async with linked(mesh.nats.url) as link:
        await streams.ensure_kept_replies(link.jetstream)
        await link.jetstream.publish(subjects.kept_reply("a"), b"x")
        await says(
            mesh.http,
            f"forebay_stream_messages{labels} 1.0",
            f"forebay_stream_max_bytes{labels} 6.7108864e+07",
            f"forebay_stream_copies{labels} 1.0",
            f"forebay_stream_current_copies{labels} 1.0",
        )
        await link.jetstream.delete_stream(streams.KEPT_REPLIES)

        async def gone() -> bool:
            return streams.KEPT_REPLIES not in (await scraped(mesh.http))[0]

        await eventually(gone)


async def test_no_stream_of_the_mesh_is_left_out(mesh: ControlPlane) -> None:
    await mesh.create("add", replicas=1)
    async with linked(mesh.nats.url) as link:
        await task_streams.ensure(link.jetstream)
        await streams.ensure_kept_replies(link.jetstream)
        await usage.ensure(link.jetstream)
        there = {info.config.name for info in await link.jetstream.streams_info()}
    assert there <= set(STREAMS)


async def test_a_real_prometheus_reads_all_services_and_the_rules(
    mesh: ControlPlane, tmp_path: Path
) -> None:
    await mesh.agent(Agent("node-a", slots=2))
    await mesh.create("add", replicas=3)
    async with serving(
        serve_router,
        RouterSettings,
        tmp_path / "router.json",
        nats_url=mesh.nats.url,
        listen=LOOPBACK,
        http_listen=LOOPBACK,
    ) as router:
        targets = {
            "forebay-metrics": mesh.http,
            "forebay-autoscaler": of_autoscaler(mesh),
            "forebay-router": router["router_http"],
        }
        with PrometheusServer(tmp_path / "prometheus", targets) as prometheus:
            await _read(prometheus, len(targets))


async def _read(prometheus: PrometheusServer, targets: int) -> None:
    def all_up() -> bool:
        return prometheus.query('sum(up{job=~"forebay-.+"})') == {(): targets}

    await eventually(lambda: asyncio.to_thread(all_up), timeout_s=60)

    def known() -> bool:
        assert prometheus.query("sum(forebay_nats_connected)") == {(): targets}
        assert prometheus.query('forebay_replicas{state="ready"} == 2')
        assert prometheus.query("forebay_unplaced_replicas == 1")
        return True

    await eventually(lambda: asyncio.to_thread(known), timeout_s=60)

    def evaluated() -> bool:
        rules = prometheus.rules()
        assert rules
        assert {rule["health"] for rule in rules} == {"ok"}
        pending = {rule["name"] for rule in rules if rule.get("alerts")}
        assert pending == {"ForebayUnplacedReplicas"}
        return True

    await eventually(lambda: asyncio.to_thread(evaluated), timeout_s=60)
