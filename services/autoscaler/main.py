"""forebay-autoscaler: keeps deployments and models, and decides what each node runs."""

import asyncio

import grpc.aio

from forebay.v1 import autoscaler_pb2_grpc, deployment_pb2_grpc, model_pb2_grpc
from services.autoscaler.assignment_service import AssignmentService
from services.autoscaler.consumers import Consumers
from services.autoscaler.deployment_service import DeploymentService
from services.autoscaler.deployments import Deployments
from services.autoscaler.epoch import Epoch
from services.autoscaler.load import LoadWatch
from services.autoscaler.loop import Loop
from services.autoscaler.model_service import ModelService
from services.autoscaler.model_store import ModelStore
from services.autoscaler.settings import AutoscalerSettings
from services.runtime import process
from services.runtime.clock import SystemClock
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire import streams
from services.wire.channels import SERVER_OPTIONS, listen
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

HEALTH_INTERVAL_S = 0.25
STOP_GRACE_S = 2.0

SERVICE_NAMES = [
    "forebay.v1.AutoscalerService",
    "forebay.v1.DeploymentService",
    "forebay.v1.ModelService",
]


async def serve(settings: AutoscalerSettings, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set."""
    clock = SystemClock()
    link = NatsLink("forebay-autoscaler", settings.nats_url, settings.nats_credentials_file)
    deployments = KvMirror(link, streams.deployments_bucket)
    assignments = KvMirror(link, streams.assignments_bucket)
    epoch = Epoch(assignments)
    link.on_connected(epoch.claim)
    consumers = Consumers(link, deployments, settings.ack_wait_s)
    link.on_connected(consumers.ensure_all)
    changed = asyncio.Event()
    load = LoadWatch(settings.metrics, clock, changed)
    loop = Loop(link, deployments, assignments, epoch, load, clock, settings.node_grace_s)
    models = ModelStore(link, settings.spool_dir)
    watches = AssignmentService(assignments, epoch)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(
        DeploymentService(Deployments(deployments, models, consumers, clock)), server
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), server)
    autoscaler_pb2_grpc.add_AutoscalerServiceServicer_to_server(watches, server)
    health = Health(server, SERVICE_NAMES)
    address = listen(server, settings.listen)
    await server.start()
    process.announce(settings, autoscaler=address)
    try:
        await run_until(
            stopping,
            nats=link.run(stopping),
            deployments=deployments.run(),
            assignments=assignments.run(),
            consumers=consumers.run(),
            load=load.run(),
            loop=loop.run(changed),
            health=_keep_health(health, link),
        )
    finally:
        await health.set_serving(False)
        watches.end_watches()
        await server.stop(STOP_GRACE_S)
        await link.close()


def main() -> None:
    """Runs the service as a process."""
    process.run("autoscaler", AutoscalerSettings, serve)


async def _keep_health(health: Health, link: NatsLink) -> None:
    while True:
        # Connected means that deployments and assignments have been read too.
        await health.set_serving(link.connected)
        await asyncio.sleep(HEALTH_INTERVAL_S)


if __name__ == "__main__":
    main()
