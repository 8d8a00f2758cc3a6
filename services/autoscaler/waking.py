"""Cold starts: a router's word that a request or a task waits becomes a decision at once."""

import asyncio
from itertools import islice

import nats.errors
import nats.js.errors
import structlog

from services.autoscaler.leadership import Leadership
from services.autoscaler.targets import Targets
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from services.wire.tasks import streams as task_streams
from services.wire.tasks import subjects as task_subjects

log = structlog.get_logger()

ASK_TIMEOUT_S = 0.05
"""How long the consumers' leaders are waited for; without a word one request is taken to wait."""

REPEAT_AFTER_S = 0.25
"""Whoever submits tasks says so up to a hundred times a second, also where none may be started."""

MAX_WAITING = 10_000
MAX_ASKED = 64


class Waking:
    """Listens to the routers."""

    def __init__(
        self, link: NatsLink, leadership: Leadership, targets: Targets, changed: asyncio.Event
    ) -> None:
        """Listens from the next connection on.

        Args:
            link: to NATS.
            leadership: only the leader decides.
            targets: decides.
            changed: set after each decision, so that the replicas are placed at once.
        """
        self._link = link
        self._leadership = leadership
        self._targets = targets
        self._changed = changed
        # By deployment, the streams and consumers in which something is said to wait.
        self._waiting: dict[str, set[tuple[str, str]]] = {}
        # When a deployment at zero was last said to have a task.
        self._heard_s: dict[str, float] = {}
        self._told = asyncio.Event()
        self._listening = False
        link.on_connected(self._listen)

    async def run(self) -> None:
        """Decides for whoever waits, for ever."""
        while True:
            await self._told.wait()
            self._told.clear()
            waiting, self._waiting = iter(self._waiting.items()), {}
            # Side by side: a consumer's leader that is slow to answer delays no other deployment.
            while some := list(islice(waiting, MAX_ASKED)):
                await asyncio.gather(*(self._wake(*one) for one in some))

    async def _listen(self) -> None:
        if not self._listening:
            await self._link.client.subscribe_direct(subjects.WAKES, self._on_wake)
            await self._link.client.subscribe_direct(task_subjects.WAITING, self._on_task)
            self._listening = True

    def _on_wake(self, subject: bytes, *_: object) -> None:
        deployment = subject.rpartition(b".")[2].decode()
        self._note(deployment, (streams.REQUESTS, deployment))

    def _on_task(self, subject: bytes, _: bytes, said: bytes, __: bytes | None) -> None:
        # Said of every deployment that is given tasks, not only of those at zero.
        deployment = subject.rpartition(b".")[2].decode()
        if said not in _PRIORITIES or not self._targets.is_at_zero(deployment):
            return
        now_s = asyncio.get_running_loop().time()
        if now_s - self._heard_s.get(deployment, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return
        if len(self._heard_s) >= MAX_WAITING:
            self._heard_s.clear()
        self._heard_s[deployment] = now_s
        self._note(deployment, (task_streams.TASKS, task_streams.consumer(deployment, int(said))))

    def _note(self, deployment: str, consumer: tuple[str, str]) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.setdefault(deployment, set()).add(consumer)
            self._told.set()

    async def _wake(self, deployment: str, consumers: set[tuple[str, str]]) -> None:
        if not self._leadership.leading:
            return
        loads = await asyncio.gather(*(self._load(*consumer) for consumer in consumers))
        known = [load for load in loads if load is not None]
        queued, ongoing = (sum(counts) for counts in zip((0, 0), *known, strict=True))
        tasks_only = all(stream == task_streams.TASKS for stream, _ in consumers)
        if tasks_only and len(known) == len(loads) and not queued and not ongoing:
            # A task is stored before it is told of: it was cancelled, or is done.
            return
        target = self._targets.wake(deployment, queued, ongoing)
        if target:
            # Else it is held at zero, and told of again and again.
            log.info("scale.woken", deployment=deployment, queued=queued, target=target)
            self._changed.set()

    async def _load(self, stream: str, consumer: str) -> tuple[int, int] | None:
        """What waits and what runs, from the consumer's leader; None if it does not say."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                info = await self._link.jetstream.consumer_info(stream, consumer)
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            log.debug("wake.unasked", consumer=consumer, error=repr(error))
            return None
        return info.num_pending or 0, info.num_ack_pending or 0


_PRIORITIES = {str(priority).encode() for priority in task_streams.PRIORITIES}
