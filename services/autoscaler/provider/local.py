"""Adds machines by starting node agents on this one: for trying things out, and for tests.

One at a time: an agent that was started is waited for, until it reports or its allowance is over,
before there is another. Nodes that may go are told to drain if they were started here.
"""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import structlog

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.assignments import demand_of
from services.autoscaler.capacity import Gpu, Node
from services.autoscaler.placement import never_fits
from services.autoscaler.provider import agents
from services.autoscaler.provider.agents import AgentProcess
from services.autoscaler.provider.protocol import ProviderError
from services.autoscaler.settings import AutoscalerSettings
from services.runtime.children import python_environment
from services.runtime.clock import Clock
from services.wire.names import NODE_PREFIX
from services.wire.offered_volumes import offered

log = structlog.get_logger()

REPEAT_S = 1.0
STARTUP_ALLOWANCE_S = 30.0
"""How long an agent may take from its start to its first report."""

STOP_ALLOWANCE_S = 60.0
"""How long an agent may drain: twice what it takes by default."""

SIMULATED_GPU_MEMORY_BYTES = 24 * 1024**3


class LocalProvider:
    """Starts and stops node agents.

    Attributes:
        note: why it cannot help, or what went wrong; empty if nothing is.
    """

    releases = True
    repeat_s = REPEAT_S

    def __init__(self, settings: AutoscalerSettings, address: str, clock: Clock) -> None:
        """Starts nothing yet.

        Args:
            settings: of the autoscaler.
            address: where this autoscaler listens.
            clock: tells how long an agent has taken.
        """
        assert settings.local_state_dir is not None, "checked with the settings"
        self.note = ""
        self._settings = settings
        self._autoscaler = settings.local_autoscaler or address
        self._state_dir: Path = settings.local_state_dir.resolve()
        self._clock = clock
        self._shape = _shape(settings)
        self._adopted = False
        self._started: set[AgentProcess] = set()
        self._waiting_since_s: dict[AgentProcess, float] = {}
        self._stopping_since_s: dict[AgentProcess, float] = {}
        self._refused_until_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether an agent is starting or stopping."""
        return bool(self._waiting_since_s or self._stopping_since_s)

    async def apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        """Starts at most one agent, and stops those whose nodes may go.

        Raises:
            ProviderError: if an agent cannot be started or stopped.
        """
        try:
            running = await self._running(reporting)
            await asyncio.to_thread(agents.bound_logs, self._state_dir)
            await self._stop(demand, running)
            self._look_at_started(running, reporting)
            if self._wanted(demand) and self._may_start(running):
                await self._start(running, reporting)
        except (OSError, psutil.Error, subprocess.SubprocessError) as error:
            raise ProviderError(f"the local node provider failed: {error}") from error

    async def _running(self, reporting: frozenset[str]) -> dict[str, AgentProcess]:
        """Agents that run, at first with those that another autoscaler started."""
        if self._adopted:
            return await asyncio.to_thread(agents.running, self._state_dir)
        await asyncio.to_thread(agents.adopt, self._state_dir)
        running = await asyncio.to_thread(agents.running, self._state_dir)
        for agent in running.values():
            log.info("provider.agent_adopted", node=agent.node, pid=agent.pid)
            if agent.node not in reporting:
                self._waiting_since_s[agent] = self._clock.monotonic_s()
        self._adopted = True
        return running

    async def _stop(self, demand: NodeDemand, running: dict[str, AgentProcess]) -> None:
        now_s = self._clock.monotonic_s()
        alive = set(running.values())
        self._stopping_since_s = {a: s for a, s in self._stopping_since_s.items() if a in alive}
        for name in demand.releasable_nodes:
            agent = running.get(name.removeprefix(NODE_PREFIX))
            if agent is not None and agent not in self._stopping_since_s:
                await asyncio.to_thread(agents.stop, agent)
                self._stopping_since_s[agent] = now_s
                log.info("provider.agent_released", node=agent.node, pid=agent.pid)
        for agent, since_s in self._stopping_since_s.items():
            if now_s - since_s > STOP_ALLOWANCE_S:
                await asyncio.to_thread(agents.stop, agent, signal.SIGKILL)
                log.warning("provider.agent_killed", node=agent.node, pid=agent.pid)

    def _look_at_started(self, running: dict[str, AgentProcess], reporting: frozenset[str]) -> None:
        """Sees who reports by now; who never did gets no second chance at once."""
        now_s = self._clock.monotonic_s()
        alive = set(running.values())
        for agent, since_s in list(self._waiting_since_s.items()):
            if agent.node in reporting and agent in alive:
                del self._waiting_since_s[agent]
                self._complain("")
                log.info("provider.agent_reports", node=agent.node, after_s=now_s - since_s)
            elif agent not in alive or now_s - since_s > STARTUP_ALLOWANCE_S:
                del self._waiting_since_s[agent]
                if agent not in self._started:
                    # It was there before, and may well do its work.
                    continue
                self._refused_until_s = now_s + STARTUP_ALLOWANCE_S
                what = "ended" if agent not in alive else "does not report"
                directory = self._state_dir / agent.node
                self._complain(f"the node agent of {agent.node} {what}; its log is in {directory}")
                if agent in alive:
                    agents.stop(agent)
                    self._stopping_since_s[agent] = now_s

    def _wanted(self, demand: NodeDemand) -> bool:
        """Whether a further node would help anyone."""
        helped = False
        reasons: list[str] = []
        for shape in demand.unplaced:
            reason = never_fits(demand_of(shape.resources), [self._shape])
            helped = helped or not reason
            if reason:
                owner = shape.deployments[0] if shape.deployments else "a replica"
                reasons.append(f"{owner}: {reason}")
        if reasons:
            self._complain(f"no node that is started here would fit {'; '.join(reasons[:5])}")
        elif not self._waiting_since_s and self._clock.monotonic_s() >= self._refused_until_s:
            self._complain("")
        return helped

    def _may_start(self, running: dict[str, AgentProcess]) -> bool:
        if self._waiting_since_s or self._clock.monotonic_s() < self._refused_until_s:
            return False
        if len(running) >= self._settings.local_max_nodes:
            self._complain(
                f"local_max_nodes = {self._settings.local_max_nodes}: so many node agents run "
                "already, and more are missing"
            )
            return False
        return True

    async def _start(self, running: dict[str, AgentProcess], reporting: frozenset[str]) -> None:
        taken = running.keys() | reporting
        node = next(f"auto-{i}" for i in range(1, 10_000) if f"auto-{i}" not in taken)
        agent = await asyncio.to_thread(
            agents.start, self._state_dir, node, self._command(node), python_environment()
        )
        self._started = {*(self._started & set(running.values())), agent}
        self._waiting_since_s[agent] = self._clock.monotonic_s()
        log.info("provider.agent_started", node=node, pid=agent.pid)

    def _command(self, node: str) -> list[str]:
        settings = self._settings
        directory = self._state_dir / node
        flags = {
            "--node": node,
            "--state-dir": str(directory),
            "--listen": "127.0.0.1:0",
            "--ready-file": str(directory / "ready.json"),
            "--slots": str(settings.local_slots),
            "--autoscaler": self._autoscaler,
            "--metrics": settings.metrics,
            "--nats-url": settings.nats_url,
            "--ack-wait-s": f"{settings.ack_wait_s:g}",
            "--log-level": settings.log_level,
            "--log-format": "json",
        }
        if settings.nats_credentials_file is not None:
            flags["--nats-credentials-file"] = str(settings.nats_credentials_file.resolve())
        if settings.local_triton_home is not None:
            flags["--triton-home"] = str(settings.local_triton_home.resolve())
        if settings.local_volumes:
            flags["--volumes"] = json.dumps(settings.local_volumes)
        if settings.local_simulated_gpus:
            flags["--simulated-gpus"] = str(settings.local_simulated_gpus)
            flags["--simulated-gpu-memory-bytes"] = str(SIMULATED_GPU_MEMORY_BYTES)
            flags["--simulated-gpu-product"] = settings.local_simulated_gpu_product
        # -P: a directory named `services` where the autoscaler was started is not ours.
        words = [word for flag in flags.items() for word in flag]
        return [sys.executable, "-P", "-m", agents.MODULE, *words]

    def _complain(self, note: str) -> None:
        """Changes the note; says it once."""
        if note and note != self.note:
            log.warning("provider.local", note=note)
        self.note = note


def _shape(settings: AutoscalerSettings) -> Node:
    """What a node has that is started here."""
    product = f"{settings.local_simulated_gpu_product} Simulated"
    return Node(
        "auto",
        settings.local_slots,
        tuple(
            Gpu(f"simulated-{i}", SIMULATED_GPU_MEMORY_BYTES, 0, product)
            for i in range(settings.local_simulated_gpus)
        ),
        cpus=float(psutil.cpu_count() or 1),
        memory_bytes=psutil.virtual_memory().total,
        volumes=tuple(
            (volume.name, volume.read_only) for volume in offered(settings.local_volumes).values()
        ),
    )
