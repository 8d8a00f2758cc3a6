"""forebay-autoscaler: keeps deployments and models, and decides what each node runs."""

import asyncio

import grpc.aio

from forebay.v1 import autoscaler_pb2_grpc, deployment_pb2_grpc, model_pb2_grpc
from services.autoscaler import housekeeping, provider
from services.autoscaler.autoscaler_service import AutoscalerService
from services.autoscaler.consumers import Consumers
from services.autoscaler.custom.runner import CustomPolicies
from services.autoscaler.deployment_service import DeploymentService
from services.autoscaler.deployments import Deployments
from services.autoscaler.duties import Duties
from services.autoscaler.exposition import AutoscalerCollector, Exposition
from services.autoscaler.journal import Journal
from services.autoscaler.leadership import Leadership
from services.autoscaler.load import LoadWatch
from services.autoscaler.loop import Loop
from services.autoscaler.machines import Machines
from services.autoscaler.model_service import ModelService
from services.autoscaler.model_store import ModelStore
from services.autoscaler.settings import AutoscalerSettings
from services.autoscaler.targets import Targets
from services.autoscaler.waking import Waking
from services.runtime import garbage, process, prometheus
from services.runtime.clock import SystemClock
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire import streams
from services.wire.channels import SERVER_OPTIONS, listen
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

STOP_GRACE_S = 2.0

SERVICE_NAMES = [
    "forebay.v1.AutoscalerService",
    "forebay.v1.DeploymentService",
    "forebay.v1.ModelService",
    "forebay.v1.UsageService",
    "forebay.v1.ScheduleService",
]


async def serve(settings: AutoscalerSettings, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set."""
    garbage.collect_rarely()
    clock = SystemClock()
    link = _link(settings)
    deployments = KvMirror(link, streams.deployments_bucket)
    assignments = KvMirror(link, streams.assignments_bucket)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    address = listen(server, settings.listen)
    leadership = Leadership(link, assignments, clock, settings.advertise or address)
    consumers = Consumers(link, deployments, settings.ack_wait_s)
    link.on_connected(consumers.ensure_all)
    changed = asyncio.Event()
    load = LoadWatch(settings.metrics, clock, changed)
    journal = Journal(link)
    kept_targets = KvMirror(link, streams.scaling_bucket)
    custom = CustomPolicies(settings.policies_dir, clock)
    targets = Targets(kept_targets, journal, clock, custom)
    waking = Waking(link, leadership, targets, changed)
    feed = provider.make(settings, address, clock)
    machines = Machines(settings, feed, clock)
    grace_s = settings.node_grace_s
    loop = Loop(link, deployments, assignments, leadership, targets, machines, load, clock, grace_s)
    told = Exposition(link, leadership, load, deployments, journal.counts)
    models = ModelStore(link, settings.spool_dir)
    watches = AutoscalerService(assignments, leadership, journal, lambda: machines.demand)
    declared = Deployments(deployments, models, consumers, clock, custom)
    duties = Duties(settings, link, deployments, assignments, leadership, load.fresh, clock)
    _register(server, duties, DeploymentService(declared), ModelService(models), watches)
    health = Health(server, SERVICE_NAMES)
    await server.start()
    exposed = _announce(settings, address, told)
    try:
        await run_until(
            stopping,
            nats=link.run(stopping),
            deployments=deployments.run(),
            assignments=assignments.run(),
            kept_targets=kept_targets.run(),
            leadership=leadership.run(),
            consumers=consumers.run(),
            load=load.run(),
            loop=loop.run(changed),
            journal=journal.run(),
            waking=waking.run(),
            custom=custom.run(),
            provider=feed.run(),
            **duties.work(),
            housekeeping=housekeeping.run(models, deployments, assignments, leadership, clock),
            # A standby serves too: health says who can answer, the lease who leads.
            health=health.follow(lambda: link.connected),
        )
    finally:
        await health.set_serving(False)
        watches.end_watches()
        # First, so that a standby leads while this one still answers its last calls.
        await leadership.release()
        await server.stop(STOP_GRACE_S)
        await exposed.stop()
        await link.close()


def _link(settings: AutoscalerSettings) -> NatsLink:
    return NatsLink(
        "forebay-autoscaler",
        settings.nats_url,
        settings.nats_credentials_file,
        settings.stream_replicas,
    )


def _announce(settings: AutoscalerSettings, address: str, told: Exposition) -> prometheus.Exposed:
    collector = AutoscalerCollector(prometheus.on_loop(told.look))
    exposed = prometheus.expose(settings.http_listen, collector)
    process.announce(settings, autoscaler=address, **exposed.listening("autoscaler_http"))
    return exposed


def _register(
    server: grpc.aio.Server,
    duties: Duties,
    deployments: DeploymentService,
    models: ModelService,
    autoscaler: AutoscalerService,
) -> None:
    deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(deployments, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    autoscaler_pb2_grpc.add_AutoscalerServiceServicer_to_server(autoscaler, server)
    duties.serve(server)


def main() -> None:
    """Runs the service as a process."""
    process.run("autoscaler", AutoscalerSettings, serve)


if __name__ == "__main__":
    main()
