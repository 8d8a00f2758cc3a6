"""Custom policies: asked without waiting, answered from what they said last.

Each function has a process of its own, so that one that hangs delays no other, and no decision
waits for any of them.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.autoscaler.custom.process import FailedError, PolicyError, WorkerProcess
from services.autoscaler.scaling.signals import Signals
from services.runtime.clock import Clock

log = structlog.get_logger()

MAX_WORKERS = 16
MAX_CHECKS = 4
"""Functions tried at the same time because somebody declares them."""

AGE_LIMIT_S = 5.0
"""How long an answer stands."""
UNUSED_AFTER_S = 60.0
"""How long a worker stays that nobody asks, and an answer that nobody renews."""
CHECK_LIMIT_S = 5.0
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0

NO_DIRECTORY = (
    "the autoscaler has no policies_dir, where custom policies are imported from: set it, or start "
    "the mesh with `forebay up --policies-dir DIR`"
)

BUSY = Signals(
    queued=40,
    ongoing=8,
    redelivered=1,
    service_time_s=0.8,
    arrivals_per_s=12.5,
    queue_wait_p95_s=3.2,
    age_s=0.5,
    poison=1,
    assigned=3,
    ready=2,
    starting=1,
)
"""A deployment with load, as a function is tried with."""

IDLE = Signals(
    queued=0,
    ongoing=0,
    redelivered=0,
    service_time_s=0.0,
    arrivals_per_s=0.0,
    queue_wait_p95_s=0.0,
    age_s=0.0,
    poison=0,
)
"""A deployment without any."""


@dataclass(slots=True)
class _Said:
    """What a function said of a deployment.

    Attributes:
        function: that said it.
        since_s: when it was first asked.
        value: its last answer; None if there is none.
        value_s: when that came.
        error: why the last attempt has no answer; empty if it has.
        error_s: when that was.
    """

    function: str
    since_s: float
    value: float | None = None
    value_s: float = 0.0
    error: str = ""
    error_s: float = 0.0


@dataclass(slots=True)
class _Worker:
    """A function, what it is asked, and whether it can answer.

    Attributes:
        asked: the newest signals of each deployment that waits for an answer.
        wanted: set when there are some.
        asked_s: when it was asked last.
        broken: why it cannot answer until it is started again; empty if it can.
    """

    asked: dict[str, Signals] = field(default_factory=dict)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    asked_s: float = 0.0
    broken: str = ""


class CustomPolicies:
    """Asks functions of one's own for numbers of replicas."""

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        """Nothing is started yet.

        Args:
            directory: where functions are imported from; None: there are no custom policies.
            clock: says how old answers are.
        """
        self._directory = directory
        self._clock = clock
        self._workers: dict[str, _Worker] = {}
        self._said: dict[str, _Said] = {}
        self._new: asyncio.Queue[str] = asyncio.Queue()
        self._checks = asyncio.Semaphore(MAX_CHECKS)
        self._pruned_s = clock.monotonic_s()

    async def run(self) -> None:
        """Answers what is asked, until it is cancelled, which ends all processes."""
        async with asyncio.TaskGroup() as group:
            while True:
                function = await self._new.get()
                group.create_task(self._serve(function, self._workers[function]))

    def ask(self, deployment: str, function: str, signals: Signals) -> None:
        """Asks for a number of replicas; does not wait. Only the newest question is answered.

        Args:
            deployment: its id.
            function: as `package.module:function`.
            signals: what is seen of it.
        """
        now_s = self._clock.monotonic_s()
        self._prune(now_s)
        said = self._said.get(deployment)
        if said is None or said.function != function:
            said = self._said[deployment] = _Said(function, now_s)
        worker = self._workers.get(function)
        if worker is None:
            if self._directory is None:
                said.error, said.error_s = NO_DIRECTORY, now_s
                return
            if len(self._workers) >= MAX_WORKERS:
                said.error = f"there are {MAX_WORKERS} custom policies already, and no more may run"
                said.error_s = now_s
                return
            worker = self._workers[function] = _Worker()
            self._new.put_nowait(function)
        worker.asked_s = now_s
        worker.asked[deployment] = signals
        worker.wanted.set()
        if worker.broken:
            said.error, said.error_s = worker.broken, now_s

    def answer(self, deployment: str) -> tuple[float | None, str]:
        """The last answer, and why there is none.

        Args:
            deployment: its id.

        Returns:
            An answer of at most 5 s ago and an empty text; or None and an error; or None and an
            empty text if a first answer may still come.
        """
        said = self._said.get(deployment)
        if said is None:
            return None, ""
        now_s = self._clock.monotonic_s()
        if said.value is not None and now_s - said.value_s <= AGE_LIMIT_S:
            return said.value, ""
        if said.error and said.error_s >= said.value_s:
            return None, said.error
        last_s = said.since_s if said.value is None else said.value_s
        if now_s - last_s <= AGE_LIMIT_S:
            return None, ""
        return None, f"has not answered for {now_s - last_s:.0f} s"

    async def check(self, function: str) -> str:
        """Tries a function with an idle and with a busy deployment, for at most 5 s.

        Args:
            function: as `package.module:function`.

        Returns:
            Why it cannot be used; empty if it can.
        """
        if self._directory is None:
            return NO_DIRECTORY
        async with self._checks:
            begun_s = self._clock.monotonic_s()
            try:
                worker = await WorkerProcess.start(self._directory, function, CHECK_LIMIT_S)
            except FailedError as error:
                return str(error)
            try:
                for signals in (IDLE, BUSY):
                    left_s = CHECK_LIMIT_S - (self._clock.monotonic_s() - begun_s)
                    await worker.call(signals, max(0.0, left_s))
            except PolicyError as error:
                return str(error)
            except FailedError as error:
                late = self._clock.monotonic_s() - begun_s >= CHECK_LIMIT_S
                return f"took longer than {CHECK_LIMIT_S:g} s to answer" if late else str(error)
            finally:
                await worker.end()
        return ""

    async def _serve(self, function: str, worker: _Worker) -> None:
        """Answers for one function until nobody asks any more."""
        failures = 0
        while self._clock.monotonic_s() - worker.asked_s < UNUSED_AFTER_S:
            answered, error = await self._answer_all(function, worker)
            if not error:
                continue
            failures = 1 if answered else failures + 1
            worker.broken = error
            log.warning("custom_policy.failed", function=function, error=error)
            self._note_error(function, list(worker.asked), error)
            await asyncio.sleep(min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 1)))
            worker.broken = ""
        del self._workers[function]

    async def _answer_all(self, function: str, worker: _Worker) -> tuple[bool, str]:
        """Answers with one process until that fails or is not needed.

        Returns:
            Whether it answered at all, and why it failed; empty if it was not needed.
        """
        assert self._directory is not None, "without a directory nothing is asked"
        answered = False
        process: WorkerProcess | None = None
        try:
            process = await WorkerProcess.start(self._directory, function)
            while await self._asked(worker):
                deployment = next(iter(worker.asked))
                signals = worker.asked.pop(deployment)
                try:
                    self._note(function, deployment, await process.call(signals))
                except PolicyError as error:
                    self._note_error(function, [deployment], str(error))
                except FailedError as error:
                    self._note_error(function, [deployment], str(error))
                    raise
                answered = True
        except FailedError as error:
            return answered, str(error)
        finally:
            if process is not None:
                await process.end()
        return answered, ""

    async def _asked(self, worker: _Worker) -> bool:
        """Waits for a question; false if none comes for long."""
        if worker.asked:
            return True
        worker.wanted.clear()
        try:
            async with asyncio.timeout(UNUSED_AFTER_S):
                await worker.wanted.wait()
        except TimeoutError:
            return bool(worker.asked)
        return True

    def _note(self, function: str, deployment: str, value: float) -> None:
        said = self._said.get(deployment)
        if said is not None and said.function == function:
            said.value, said.value_s, said.error = value, self._clock.monotonic_s(), ""

    def _note_error(self, function: str, deployments: list[str], error: str) -> None:
        now_s = self._clock.monotonic_s()
        for deployment in deployments:
            said = self._said.get(deployment)
            if said is not None and said.function == function:
                said.error, said.error_s = error, now_s

    def _prune(self, now_s: float) -> None:
        """Forgets what was said of deployments that nobody asks about."""
        if now_s - self._pruned_s < UNUSED_AFTER_S:
            return
        self._pruned_s = now_s
        old = [
            deployment
            for deployment, said in self._said.items()
            if now_s - max(said.since_s, said.value_s, said.error_s) > UNUSED_AFTER_S
        ]
        for deployment in old:
            del self._said[deployment]
