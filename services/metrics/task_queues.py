"""What JetStream knows of each deployment's tasks; `task_lanes` makes sense of it.

Like `queues`, and most of its words hold here: not known is a value, and all questions go through
the data lane, at most MAX_POLLS_PER_S a second. What differs: most deployments have no consumer,
and every task has a subject of its own, so the stream cannot be asked which lanes are in use.

- STREAM.INFO, once a second: while the stream is empty, nobody has a task. A mesh without tasks
  costs this one question, however many deployments it has.
- CONSUMER.NAMES, when there are tasks, and again if the stream counts other consumers than are
  known here. Those made and deleted are heard of at once.
- CONSUMER.INFO of each lane with a consumer: every second while it holds anything, seldom while it
  does not, and when somebody says that a task waits.
- The last message of a lane (direct get), if its consumer went away, and once for each deployment
  that is new while there are tasks: are there any that nobody can count?
"""

import structlog

from services.metrics.arrivals import QueueState
from services.metrics.dead_tasks import DeadTasks
from services.metrics.poll_schedule import (
    BUSY_INTERVAL_S,
    IDLE_INTERVAL_S,
    WORKED_FOR_S,
    WORKED_INTERVAL_S,
    PollSchedule,
)
from services.metrics.questions import (
    CONSUMER_MISSING,
    MAX_POLLS_PER_S,
    STALE_AFTER_S,
    SWEEP_INTERVAL_S,
    TICK_S,
    Questions,
    ask_for_ever,
    last_token,
    said,
)
from services.metrics.task_lanes import EVERY_PRIORITY, TaskLanes, TaskSignals, parse
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams, subjects

log = structlog.get_logger()

_ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER"
_NOT_FOUND = b"NATS/1.0 404"
_STRAYS = " "
"""Stands in a key of the schedule between deployment and priority of a lane in doubt."""


class TaskQueues:
    """The tasks of every deployment."""

    def __init__(
        self, link: NatsLink, deployments: KvMirror, clock: Clock, window_s: float
    ) -> None:
        """Knows nothing until `run` does.

        Args:
            link: to NATS.
            deployments: what is declared, `spec.{deployment}`.
            clock: tells the time.
            window_s: over which arrivals are counted.
        """
        self._link = link
        self._deployments = deployments
        self._clock = clock
        self._lanes = TaskLanes(window_s)
        self._dead = DeadTasks()
        self._schedule = PollSchedule()
        self._questions = Questions(link)
        self._swept_s = float("-inf")
        self._stream_created = ""
        self._names: set[str] = set()
        self._names_asked_s = float("-inf")
        self._stale_after_s = STALE_AFTER_S
        # Lanes in doubt of which was said that they hold strays.
        self._strays: set[str] = set()
        link.on_connected(self._on_connected)

    def signals(self, deployment: str) -> TaskSignals | None:
        """What is known of the tasks of a declared deployment now; None if nothing is."""
        return self._lanes.signals(self._clock.monotonic_s(), deployment, self._stale_after_s)

    def dead_count(self, deployment: str) -> int:
        """Tasks of a deployment that became dead letters, of which this process has heard."""
        return self._dead.count(deployment)

    async def run(self) -> None:
        """Asks for ever."""
        await ask_for_ever(self._link, self.tick)

    def tick(self) -> None:
        """Asks what is due.

        Raises:
            nats.errors.Error: if the connection was just lost.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._swept_s >= SWEEP_INTERVAL_S:
            self._sweep(now_s)
        for key in self._schedule.take(now_s, int(MAX_POLLS_PER_S * TICK_S)):
            if _STRAYS in key:
                deployment, _, priority = key.partition(_STRAYS)
                self._ask_strays(deployment, int(priority))
                continue
            lane = self._lanes.lane(*parse(key))
            if lane is not None:
                lane.asked_s = now_s
                self._questions.ask(f"CONSUMER.INFO.{streams.TASKS}.{key}", "lane", key)

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        declared = set(self._deployments.entries("spec."))
        self._lanes.declare(declared)
        self._dead.keep(declared)
        lanes = {streams.consumer(*lane) for lane in self._lanes.lanes}
        doubts = {_strays_key(*doubt) for doubt in self._lanes.doubts}
        self._schedule.keep(now_s, lanes | doubts)
        self._strays &= doubts
        # With more lanes than can be asked in that time, three rounds.
        self._stale_after_s = max(STALE_AFTER_S, 3 * len(lanes) / MAX_POLLS_PER_S)
        # When the question was put comes back with the answer.
        self._questions.ask(f"STREAM.INFO.{streams.TASKS}", "stream", now_s.hex())

    def _ask_names(self, now_s: float, offset: int = 0) -> None:
        if offset == 0:
            # Each page has nats-server sort all names: not more often than once a second for each
            # thousand of them.
            if now_s - self._names_asked_s < max(1.0, self._lanes.consumer_count / 1000):
                return
            self._names_asked_s, self._names = now_s, set()
        self._questions.ask(
            f"CONSUMER.NAMES.{streams.TASKS}", "names", str(offset), {"offset": offset}
        )

    def _ask_strays(self, deployment: str, priority: int) -> None:
        if self._lanes.is_doubtful(deployment, priority):
            lane = f"{priority}.>" if priority != EVERY_PRIORITY else ">"
            self._questions.ask(
                f"DIRECT.GET.{streams.TASKS}",
                "strays",
                f"{deployment}.{priority}",
                {"last_by_subj": f"forebay.task.{deployment}.{lane}"},
            )

    async def _on_connected(self) -> None:
        # What happened in the meantime was not heard.
        self._forget()
        await self._questions.listen(
            {
                "stream": self._on_stream,
                "names": self._on_names,
                "lane": self._on_lane,
                "strays": self._on_strays,
            },
            {
                f"{_ADVISORY}.CREATED.{streams.TASKS}.*": self._on_made,
                f"{_ADVISORY}.DELETED.{streams.TASKS}.*": self._on_deleted,
                subjects.WAITING: self._on_waiting,
                subjects.DEAD: self._on_dead,
            },
        )

    def _forget(self) -> None:
        """Knows of no lane until each has been asked for again."""
        self._lanes.forget()
        self._names_asked_s = float("-inf")
        now_s = self._clock.monotonic_s()
        for lane in self._lanes.lanes:
            self._schedule.by(now_s, streams.consumer(*lane))

    def _on_stream(self, token: str, data: bytes, _: bytes) -> None:
        answer = said(data)
        if answer is None:
            return
        if "error" in answer:
            if self._stream_created:
                log.warning("tasks.unknown", error=answer["error"])
            self._stream_created = ""
            self._lanes.forget()
            return
        if answer["created"] != self._stream_created:
            # Its consumers are gone with the stream that was.
            self._forget()
            self._stream_created = answer["created"]
        self._lanes.told_stream(float.fromhex(token), answer["state"]["messages"])
        if self._lanes.stream_is_empty:
            return
        known = self._lanes.listed
        if not known or answer["state"]["consumer_count"] != self._lanes.consumer_count:
            self._ask_names(self._clock.monotonic_s())

    def _on_names(self, token: str, data: bytes, _: bytes) -> None:
        answer = said(data)
        if answer is None or "error" in answer:
            return
        # Without any the server leaves the list out, or says null.
        names = answer.get("consumers") or []
        self._names.update(names)
        now_s, seen = self._clock.monotonic_s(), int(token) + len(names)
        if names and seen < answer["total"]:
            self._ask_names(now_s, seen)
            return
        self._lanes.told_consumers(self._names)
        self._schedule_new(now_s)

    def _schedule_new(self, now_s: float) -> None:
        for lane in self._lanes.lanes:
            self._schedule.add(now_s, streams.consumer(*lane))
        for doubt in self._lanes.doubts:
            self._schedule.add(now_s, _strays_key(*doubt))

    def _on_lane(self, name: str, data: bytes, _: bytes) -> None:
        lane, answer = self._lanes.lane(*parse(name)), said(data)
        if lane is None or answer is None:
            return
        now_s = self._clock.monotonic_s()
        if "error" in answer:
            lane.state = None
            if answer["error"].get("err_code") == CONSUMER_MISSING:
                self._gone(now_s, name)
            else:
                self._schedule.answered(now_s, name, BUSY_INTERVAL_S)
            return
        self._lanes.told_lane(now_s, lane, QueueState.of(answer))
        worked = now_s - lane.moved_s < WORKED_FOR_S
        pause_s = WORKED_INTERVAL_S if worked else IDLE_INTERVAL_S
        # Not quiet either is one of which somebody spoke while it was asked for.
        self._schedule.answered(now_s, name, pause_s if lane.is_quiet else BUSY_INTERVAL_S)

    def _on_strays(self, token: str, _: bytes, headers: bytes) -> None:
        deployment, _dot, last = token.partition(".")
        priority = int(last)
        key = _strays_key(deployment, priority)
        if headers.startswith(_NOT_FOUND):
            self._lanes.told_strays(deployment, priority, False)
        elif b"\r\nNats-Sequence:" in headers:
            if key not in self._strays:
                log.warning("tasks.stray", deployment=deployment, priority=priority)
                self._strays.add(key)
            self._schedule.answered(self._clock.monotonic_s(), key, BUSY_INTERVAL_S)
            self._lanes.told_strays(deployment, priority, True)

    def _on_made(self, subject: bytes, _: bytes, __: bytes, ___: bytes | None) -> None:
        now_s, name = self._clock.monotonic_s(), last_token(subject)
        if self._lanes.made(now_s, *parse(name)) is not None:
            self._schedule.add(now_s, name)

    def _on_deleted(self, subject: bytes, _: bytes, __: bytes, ___: bytes | None) -> None:
        self._gone(self._clock.monotonic_s(), last_token(subject))

    def _gone(self, now_s: float, name: str) -> None:
        deployment, priority = parse(name)
        self._lanes.gone(deployment, priority)
        self._schedule.add(now_s, _strays_key(deployment, priority))

    def _on_waiting(self, subject: bytes, _: bytes, priority: bytes, __: bytes | None) -> None:
        deployment = last_token(subject)
        if not priority.isdigit() or int(priority) not in streams.PRIORITIES:
            return
        now_s = self._clock.monotonic_s()
        lane = self._lanes.there(deployment, int(priority))
        if lane is not None:
            lane.heard_s = now_s
            name = streams.consumer(deployment, int(priority))
            self._schedule.add(now_s, name)
            self._schedule.by(max(now_s, lane.asked_s + BUSY_INTERVAL_S), name)

    def _on_dead(self, subject: bytes, _: bytes, __: bytes, ___: bytes | None) -> None:
        deployment, task_id = subject.decode().rsplit(".", 2)[1:]
        if self._deployments.get(f"spec.{deployment}") is not None:
            self._dead.add(deployment, task_id)


def _strays_key(deployment: str, priority: int) -> str:
    return f"{deployment}{_STRAYS}{priority}"
