"""What runs Tritons: one interface, behind which they are processes or containers.

A replica asks its runtime for a Triton, watches it and ends it; how that is done is the runtime's.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.node_pb2 import ReplicaRuntime


class TritonExitedError(Exception):
    """Triton ended while it was needed."""


class StartRefusedError(Exception):
    """The runtime does not start this replica; the text says why, for a person."""


class RuntimeAwayError(Exception):
    """Nothing can be started now, and nothing is wrong with the replica; the text says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """A replica that needs a Triton.

    Attributes:
        assignment: what it was assigned.
        deployment: id of the deployment, the name of its model in Triton.
        directory: the replica's own; gets `repository/` and `triton.log`.
        model: the unpacked model.
        say: told what takes time.
    """

    assignment: Assignment
    deployment: str
    directory: Path
    model: Path
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one look at a Triton found.

    Attributes:
        resident_bytes: memory of all its processes; 0 if not known.
        process_ids: of all its processes on this machine, at most 256.
    """

    resident_bytes: int = 0
    process_ids: tuple[int, ...] = ()


class Triton(Protocol):
    """A Triton that was started or adopted."""

    @property
    def address(self) -> str:
        """Where its gRPC service listens, as host:port; known once `wait_listening` returned."""
        ...

    @property
    def access_key(self) -> str:
        """What its callers must show; empty if nothing."""
        ...

    @property
    def image_id(self) -> str:
        """Image of its container; empty for a process."""
        ...

    @property
    def shares_memory(self) -> bool:
        """Whether it sees the shared memory of this machine."""
        ...

    @property
    def startup_s(self) -> float:
        """Time from its start to its replica's first READY; 0 before."""
        ...

    def note_startup(self, startup_s: float) -> None:
        """Notes how long its start took, for an agent that adopts it."""
        ...

    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        ...

    async def wait_listening(self, timeout_s: float) -> None:
        """Waits until it listens, which it does once its model is loaded.

        Raises:
            TritonExitedError: if it ends before.
            TimeoutError: if it takes longer.
        """
        ...

    async def wait_exit(self) -> None:
        """Waits until it has ended or is as good as that, however long it takes."""
        ...

    async def why_ended(self) -> str:
        """Why it ended or a process in it did, for a person; empty if only its log can tell.

        Returns within seconds, with its log complete as far as it can be had.
        """
        ...

    async def stop(self, graceful: bool = True) -> None:
        """Ends it and everything it started; gives it time to finish if `graceful`.

        Returns in bounded time. Where it could not be ended, its runtime goes on trying.
        """
        ...


Launch = Callable[[], Awaitable[Triton]]
"""Starts the Triton of an order. Raises as `Runtime.prepare` does."""


class Runtime(Protocol):
    """Starts Tritons on this machine and finds those of a former agent."""

    @property
    def kind(self) -> ReplicaRuntime:
        """What it is, as reported."""
        ...

    @property
    def message(self) -> str:
        """Why no replica can be started now; empty if they can."""
        ...

    async def open(self) -> None:
        """Gets to know what runs. Call once, before anything else."""
        ...

    async def run(self) -> None:
        """Keeps `message` true, for ever."""
        ...

    async def wait_usable(self) -> None:
        """Waits until replicas can be started, and at least a moment."""
        ...

    async def prepare(self, order: Order) -> Launch:
        """Makes everything ready that a Triton needs before it starts.

        Raises:
            StartRefusedError: if it cannot be had.
            RuntimeAwayError: if it cannot be had now.
            RequirementsError: if the model's Python environment cannot be built.
            OSError: if the replica's directory cannot be written.
        """
        ...

    async def is_running(self, directory: Path) -> bool:
        """Whether the Triton that a former agent started in a directory can be adopted."""
        ...

    async def adopt(self, directory: Path) -> Triton | None:
        """The Triton that a former agent started in a directory, if it runs."""
        ...

    async def remove(self, directory: Path) -> None:
        """Ends whatever is left of a replica's Triton."""
        ...

    async def survey(self, known: Callable[[], Mapping[str, Triton | None]]) -> dict[str, Measured]:
        """Measures every Triton, keeps logs within bounds, ends what belongs to no replica.

        Args:
            known: gives all replicas there are now, with their Tritons.

        Returns:
            By replica what was found; those of which nothing is known are missing.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections; Tritons that run go on."""
        ...
