"""`forebay-router`: puts the router together and runs it until it is told to stop."""

import asyncio
import secrets

import nats.errors
import structlog

import forebay
from forebay.v1.task_pb2_grpc import add_TaskServiceServicer_to_server
from services.router.body_arena import BodyArena
from services.router.counters import RouterCounters
from services.router.directory import DeploymentDirectory
from services.router.exposition import RouterCollector
from services.router.idempotency import KeptReplies
from services.router.inference import InferenceCore
from services.router.open_inference import MODEL_INFER, SERVICE, OpenInferenceServicer
from services.router.pending import PendingCalls
from services.router.queue import RequestQueue
from services.router.servicers import ROUTER_SERVICE, InferServicer
from services.router.settings import RouterSettings
from services.router.tasks.calls import TASK_SERVICE
from services.router.tasks.servicer import TaskServicer
from services.router.wakes import Wakes
from services.runtime import process, prometheus
from services.runtime.clock import SystemClock
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire.channels import listen
from services.wire.http2.server.grpc_server import GrpcServer
from services.wire.limits import MAX_GRPC_MESSAGE_BYTES
from services.wire.nats_link import NatsLink
from services.wire.triton_stubs import service_pb2_grpc as triton_grpc

log = structlog.get_logger()


async def serve(settings: RouterSettings, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set, then finishes the calls under way."""
    clock = SystemClock()
    router_id = secrets.token_hex(6)
    link = _link(settings, router_id)
    arena = BodyArena(settings.arena_bytes)
    pending = PendingCalls(settings.max_pending_calls, settings.max_pending_bytes)
    counters = RouterCounters()
    directory = DeploymentDirectory(link)
    wakes = Wakes(link, directory, clock)
    queue = RequestQueue(link, router_id, pending, arena, clock, counters, wakes.tell)
    kept = KeptReplies(link, queue, pending)
    core = InferenceCore(link, directory, pending, queue, arena, kept, counters, clock, router_id)

    def is_serving() -> bool:
        return link.connected and directory.known and not stopping.is_set()

    open_inference = OpenInferenceServicer(
        link, directory, str(forebay.__version__), is_serving, wakes.tell
    )
    tasks = TaskServicer(link, directory, counters, clock, stopping)
    server = _server(InferServicer(core), open_inference, tasks)
    health = Health(server, [ROUTER_SERVICE, SERVICE, TASK_SERVICE])
    address = listen(server, settings.listen)
    drained = asyncio.Event()
    exposed = prometheus.Exposed()

    async def drain_when_told() -> None:
        await stopping.wait()
        await health.set_serving(False)
        log.info("draining", pending=len(pending))
        await server.stop(settings.drain_s)
        drained.set()

    try:
        await server.start()
        await health.set_serving(False)
        ids = prometheus.on_loop(directory.ids)
        collector = RouterCollector(counters, lambda: len(pending), ids, lambda: link.connected)
        exposed = prometheus.expose(settings.http_listen, collector)
        process.announce(settings, router=address, **exposed.listening("router_http"))
        await run_until(
            drained,
            nats=link.run(drained),
            directory=directory.run(),
            sweep=_sweep(queue),
            task_streams=tasks.end_streams(),
            task_clock=tasks.follow_clock(),
            health=health.follow(is_serving),
            drain=drain_when_told(),
        )
    finally:
        await server.stop(0)
        await exposed.stop()
        await link.close()
        arena.close()


def _link(settings: RouterSettings, router_id: str) -> NatsLink:
    return NatsLink(
        f"router {router_id}",
        settings.nats_url,
        settings.nats_credentials_file,
        settings.stream_replicas,
    )


def _server(
    infer: InferServicer, open_inference: OpenInferenceServicer, tasks: TaskServicer
) -> GrpcServer:
    server = GrpcServer(MAX_GRPC_MESSAGE_BYTES)
    # First, so that ModelInfer passes raw.
    server.add_raw(f"/{ROUTER_SERVICE}/Infer", infer.infer)
    server.add_raw(MODEL_INFER, infer.model_infer)
    triton_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server)
    add_TaskServiceServicer_to_server(tasks, server)
    return server


async def _sweep(queue: RequestQueue) -> None:
    while True:
        await asyncio.sleep(0.5)
        try:
            await queue.sweep()
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("queue.sweep_failed", error=str(error) or type(error).__name__)


def main() -> None:
    """Entry point of `forebay-router`."""
    process.run("router", RouterSettings, serve)


if __name__ == "__main__":
    main()
