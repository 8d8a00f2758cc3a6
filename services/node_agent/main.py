"""`forebay-node-agent`: puts the agent together and runs it until it is told to stop."""

import asyncio
import fcntl
from pathlib import Path
from typing import IO, TYPE_CHECKING

import grpc.aio
import structlog

import forebay
from services.node_agent import assignments
from services.node_agent.agent import Agent
from services.node_agent.containers.container_runtime import ContainerRuntime
from services.node_agent.models.model_cache import ModelCache
from services.node_agent.process_runtime import ProcessRuntime
from services.node_agent.replica_log import ReplicaLogs
from services.node_agent.report import Reporter
from services.node_agent.runtime import Runtime
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.surroundings import Surroundings
from services.node_agent.tasks.usage_notes import UsageNotes
from services.node_agent.traces.replica_trace import CALLS
from services.runtime import process, telemetry
from services.runtime.clock import SystemClock
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire.channels import SERVER_OPTIONS, listen
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.tasks.ledger import TaskLedger

if TYPE_CHECKING:
    from services.node_agent.traces.trace_relay import TraceRelay

log = structlog.get_logger()

CLOCK_SAMPLE_S = 10.0


async def serve(settings: NodeAgentSettings, stopping: asyncio.Event) -> None:
    """Runs replicas until `stopping` is set, then drains them."""
    state_dir = settings.state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    lock = _only_agent_of(state_dir)
    changed = asyncio.Event()
    around = _surroundings(settings, state_dir, changed)
    link, clock, usage = around.link, around.clock, around.usage
    ReplicaLogs(link, state_dir, settings.node)
    agent = Agent(around)
    version = str(forebay.__version__)
    reporter = Reporter(settings.metrics, settings.node, version, clock, agent.report, changed)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    health = Health(server, ["forebay.NodeAgent"])
    address = listen(server, settings.listen)
    drained = asyncio.Event()

    async def drain_when_told() -> None:
        await stopping.wait()
        await health.set_serving(False)
        log.info("draining")
        changed.set()
        await agent.drain()
        # As long as the connection lasts.
        await usage.write()
        drained.set()

    relay = await _trace_relay(settings, state_dir, around)
    try:
        await server.start()
        await health.set_serving(False)
        await agent.open()
        process.announce(settings, node_agent=address)
        await run_until(
            drained,
            nats=link.run(drained),
            clock=_sample_clock(around.server_clock, link),
            assignments=assignments.follow(settings.autoscalers, settings.node, agent.accept),
            reports=reporter.run(),
            replicas=agent.watch_tasks(),
            runtime=around.runtime.run(),
            measure=agent.measure(),
            gpus=agent.watch_gpus(),
            tidy=agent.tidy(),
            usage=usage.run(),
            health=health.follow(lambda: link.connected),
            drain=drain_when_told(),
        )
    finally:
        await agent.drain()
        await around.runtime.close()
        if relay is not None:
            await relay.close()
        await server.stop(0)
        await link.close()
        lock.close()


def _surroundings(
    settings: NodeAgentSettings, state_dir: Path, changed: asyncio.Event
) -> Surroundings:
    runtime = _runtime(settings, state_dir, changed)
    clock = SystemClock()
    link = NatsLink(
        f"node {settings.node}",
        settings.nats_url,
        settings.nats_credentials_file,
        settings.stream_replicas,
    )
    server_clock = ServerClock(link, clock)
    ledger = TaskLedger(link)
    return Surroundings(
        settings=settings,
        runtime=runtime,
        models=ModelCache(state_dir / "models", link),
        link=link,
        clock=clock,
        server_clock=server_clock,
        ledger=ledger,
        usage=UsageNotes(ledger),
        changed=changed.set,
    )


async def _trace_relay(
    settings: NodeAgentSettings, state_dir: Path, around: Surroundings
) -> "TraceRelay | None":
    """What takes Tritons' own spans; None while tracing is off: they make none then."""
    if not telemetry.enabled():
        return None
    # Imports the SDK.
    from services.node_agent.traces.trace_relay import TraceRelay

    relay = TraceRelay(settings.node, CALLS, around.clock)
    await relay.open(settings.trace_relay_listen, state_dir / "trace_relay.port")
    if isinstance(around.runtime, ProcessRuntime):
        around.runtime.trace_url = relay.url
    return relay


def _runtime(settings: NodeAgentSettings, state_dir: Path, changed: asyncio.Event) -> Runtime:
    if settings.runtime == "docker":
        return ContainerRuntime.of(settings, changed.set)
    return ProcessRuntime.of(settings, state_dir)


def _only_agent_of(state_dir: Path) -> IO[str]:
    """Locks a state directory; the lock ends with the process.

    Raises:
        OSError: if another agent has it: two would serve the same Tritons.
    """
    lock = (state_dir / "agent.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OSError(
            f"another node agent runs on {state_dir}: stop it, or give this one a --state-dir of "
            "its own"
        ) from None
    return lock


async def _sample_clock(server_clock: ServerClock, link: NatsLink) -> None:
    while True:
        await asyncio.sleep(CLOCK_SAMPLE_S)
        if link.connected:
            await server_clock.sample()


def main() -> None:
    """Entry point of `forebay-node-agent`."""
    process.run("node_agent", NodeAgentSettings, serve)


if __name__ == "__main__":
    main()
