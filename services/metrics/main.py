"""forebay-metrics: hosts the agents' sessions and says how loaded the mesh is."""

import asyncio
import gc

import grpc.aio

from forebay.v1 import node_pb2_grpc
from services.metrics import exposition, window
from services.metrics.declared import DeclaredDeployments
from services.metrics.exposition import Exposition
from services.metrics.http_server import HttpServer, MakeAcceptedPage, MakePage, Page
from services.metrics.loads import LoadTable
from services.metrics.metrics_service import MetricsService
from services.metrics.node_service import NodeService
from services.metrics.nodes import NodeTable
from services.metrics.page.recent_decisions import RecentDecisions
from services.metrics.page.routes import Routes
from services.metrics.page.sampler import Sampler
from services.metrics.queues import Queues
from services.metrics.replica_logs import ReplicaLogs
from services.metrics.settings import MetricsSettings
from services.metrics.snapshots import Mesh
from services.metrics.stream_sizes import StreamSizes
from services.metrics.task_queues import TaskQueues
from services.runtime import garbage, process
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire import streams
from services.wire.channels import SERVER_OPTIONS, listen
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

HEALTH_INTERVAL_S = 0.25
FORGET_INTERVAL_S = 10.0
STOP_GRACE_S = 2.0

COLLECT_THRESHOLDS = (200_000, 10, 10)
"""Of Python's cycle collector. What reports leave is freed by its reference counts, and every
collection walks the replicas of all nodes: with 20,000 of them Python's own thresholds took 40 % of
this process' time and found nothing."""

SERVICE_NAMES = ["forebay.v1.MetricsService", "forebay.v1.NodeService"]


async def serve(settings: MetricsSettings, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set."""
    garbage.collect_rarely()
    clock = SystemClock()
    link = NatsLink(
        "forebay-metrics",
        settings.nats_url,
        settings.nats_credentials_file,
        settings.stream_replicas,
    )
    deployments = KvMirror(link, streams.deployments_bucket)
    queues = Queues(link, deployments, clock, settings.window_s)
    tasks = TaskQueues(link, deployments, clock, settings.window_s)
    # No more often than a window can tell.
    nodes = NodeTable(settings.node_grace_s, settings.window_s / window.SLOTS)
    mesh = Mesh(nodes, LoadTable(settings.window_s), queues, tasks, clock)
    sessions = NodeService(mesh, ReplicaLogs(link), clock, settings.report_interval_s)
    snapshots = MetricsService(mesh, clock)
    sizes = StreamSizes(link, clock)
    told = _exposition(mesh, deployments, sizes, link, clock)
    sampler = Sampler(mesh, deployments, clock, settings.node_grace_s)
    decisions = RecentDecisions(link)
    page = Routes(sampler, decisions, lambda: link.connected)
    http = HttpServer(_pages(link), page.find, {"/metrics": _metrics_page(told)})

    server = grpc.aio.server(options=SERVER_OPTIONS)
    node_pb2_grpc.add_NodeServiceServicer_to_server(sessions, server)
    server.add_generic_rpc_handlers((snapshots,))
    health = Health(server, SERVICE_NAMES)
    address = listen(server, settings.listen)
    await http.start(settings.http_listen)
    await server.start()
    process.announce(settings, metrics=address, metrics_http=http.address)
    try:
        await run_until(
            stopping,
            nats=link.run(stopping),
            deployments=deployments.run(),
            queues=queues.run(),
            tasks=tasks.run(),
            sizes=sizes.run(),
            forget=_forget(mesh),
            page=sampler.run(),
            decisions=decisions.run(),
            health=_keep_health(health, link),
        )
    finally:
        await health.set_serving(False)
        sessions.end_sessions()
        snapshots.end_watches()
        await http.stop()
        await server.stop(STOP_GRACE_S)
        await link.close()


def main() -> None:
    """Runs the service as a process."""
    gc.set_threshold(*COLLECT_THRESHOLDS)
    process.run("metrics", MetricsSettings, serve)


async def _keep_health(health: Health, link: NatsLink) -> None:
    while True:
        await health.set_serving(link.connected)
        await asyncio.sleep(HEALTH_INTERVAL_S)


async def _forget(mesh: Mesh) -> None:
    while True:
        mesh.forget()
        await asyncio.sleep(FORGET_INTERVAL_S)


def _exposition(
    mesh: Mesh, deployments: KvMirror, sizes: StreamSizes, link: NatsLink, clock: Clock
) -> Exposition:
    declared = DeclaredDeployments()
    return Exposition(
        mesh,
        clock,
        lambda: link.connected,
        lambda: declared.update(deployments.entries("spec.")),
        sizes.current,
    )


def _metrics_page(told: Exposition) -> MakeAcceptedPage:
    # One scrape at a time: that of a large mesh takes seconds, and tens of megabytes.
    scraping = asyncio.Lock()

    async def metrics(accept: str) -> Page:
        async with scraping:
            # In a thread, or agents and autoscalers would wait for as long.
            body, content_type = await asyncio.to_thread(exposition.encode, told.look(), accept)
        return Page(200, body, content_type)

    return metrics


def _pages(link: NatsLink) -> dict[str, MakePage]:
    async def healthz() -> Page:
        if link.connected:
            return Page(200, b"serving\n")
        return Page(503, b"not serving: not connected to NATS\n")

    return {"/healthz": healthz}


if __name__ == "__main__":
    main()
