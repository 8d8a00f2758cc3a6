"""A simulated deployment with its requests, and its replicas. Pure.

A request is a number; what is known of it is in lists, because a day of a busy deployment has
millions of them.
"""

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from operator import itemgetter
from typing import Any

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.capacity import Share
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.view import State
from services.wire.names import deployment_id

DEFAULT_SLOTS = 8
DEFAULT_MAX_HELD = 1000
DEFAULT_PATIENCE_S = 60.0


class Fate(IntEnum):
    """Where a request is; from SERVED on, how it ended."""

    QUEUED = 0
    DELIVERED = 1
    SERVED = 2
    LEFT = 3
    POISON = 4
    DELETED = 5


ENDED = frozenset(fate for fate in Fate if fate >= Fate.SERVED)


class SimReplica:
    """A replica on a simulated node.

    Attributes:
        life: rises when its requests are lost, so that what was to come of them does not.
        start: rises with every start, so that what was to come of the last does not.
        slots: requests it works on at once.
        ongoing: requests that it works on.
        assigned_s, ready_s: when it was assigned, and first ready.
    """

    __slots__ = (
        "assigned_s",
        "deployment",
        "generation",
        "life",
        "node",
        "ongoing",
        "ready_s",
        "replica_id",
        "share",
        "slots",
        "start",
        "start_count",
        "state",
    )

    def __init__(
        self,
        replica_id: str,
        deployment: "Deployed",
        node: str,
        generation: int,
        share: Share,
        assigned_s: float,
    ) -> None:
        self.replica_id = replica_id
        self.deployment = deployment
        self.node = node
        self.generation = generation
        self.share = share
        self.slots = deployment.slots
        self.state = State.STARTING
        self.ongoing: set[int] = set()
        self.life = 0
        self.start = 0
        self.start_count = 1
        self.assigned_s = assigned_s
        self.ready_s: float | None = None


class Deployed:
    """A deployment and all its requests.

    Attributes:
        declared: as the API keeps it.
        services: service times of the requests to come.
        patience_s: how long a request that comes now waits before its client leaves.
        least_patience_s: the shortest that was ever declared.
        max_held: how many may wait or run; further ones are refused.
        ceiling: how many there may be: `max_held`, or what was there when that was lowered.
        sent: requests that came, refused ones included.
        queue: numbers of requests that wait; some of them have left.
        redeliver: those that wait again, before all others.
        free: a replica for each of its free slots, the one that has been free for longest first.
        queued: requests that were never delivered.
        ongoing: requests that were, and are not settled.
        redelivered: those of them that wait, or run, again.
        fates, arrived, service_s: of each request.
        waits_s: queue waits of those that were delivered.
        deliveries: how often, of requests that were delivered again.
        poison: requests that end every replica that takes them.
        consumer_missing: whether the queue cannot be asked.
        served, left, ended_poison, refused: how requests ended, and how many were never taken in.
        served_s: service times of those that were served, summed up.
        users: who sends again when a request has ended; None: nobody.
        wakes: whether a request that waits must wake the autoscaler.
        assigned, ready: replicas by now, and those of them that are READY.
        starts, ups, downs, cold_starts: replicas started, times that the target rose and fell, and
            times that it rose from zero.
        levels: assigned and ready since each instant.
        patiences: `patience_s` of the requests from each number on.
        changed_s: when it was last declared.
        deleted: whether it is not declared any more.
    """

    __slots__ = (
        "arrived",
        "assigned",
        "ceiling",
        "changed_s",
        "cold_starts",
        "consumer_missing",
        "declared",
        "deleted",
        "deliveries",
        "downs",
        "ended_poison",
        "fates",
        "free",
        "least_patience_s",
        "left",
        "levels",
        "max_held",
        "name",
        "ongoing",
        "patience_s",
        "patiences",
        "poison",
        "queue",
        "queued",
        "ready",
        "redeliver",
        "redelivered",
        "refused",
        "sent",
        "served",
        "served_s",
        "service_s",
        "services",
        "slots",
        "starts",
        "startup",
        "ups",
        "users",
        "waits_s",
        "wakes",
    )

    def __init__(
        self, declared: Deployment, services: Iterator[float], startup: StartupModel
    ) -> None:
        self.name = deployment_id(declared.name)
        self.services = services
        self.startup = startup
        self.queue: deque[int] = deque()
        self.redeliver: deque[int] = deque()
        self.free: deque[SimReplica] = deque()
        self.queued = self.ongoing = 0
        self.redelivered: set[int] = set()
        self.fates = bytearray()
        self.arrived: list[float] = []
        self.service_s: list[float] = []
        self.waits_s = array("d")
        self.deliveries: dict[int, int] = {}
        self.poison: set[int] = set()
        self.sent = self.served = self.left = self.ended_poison = self.refused = 0
        self.served_s = 0.0
        self.assigned = self.ready = self.starts = 0
        self.ups = self.downs = self.cold_starts = 0
        self.levels: list[tuple[float, int, int]] = []
        self.consumer_missing = False
        self.users: Any = None
        self.wakes = True
        self.deleted = False
        self.patiences: list[tuple[int, float]] = []
        self.ceiling = 0
        self.declare(declared, 0.0)

    def declare(self, declared: Deployment, now_s: float) -> None:
        """Takes what is declared from now on."""
        self.declared = declared
        self.slots = declared.max_ongoing_requests or DEFAULT_SLOTS
        self.max_held = declared.max_queued_requests or DEFAULT_MAX_HELD
        given = declared.HasField("request_timeout")
        timeout_s = declared.request_timeout.ToNanoseconds() / 1e9 if given else 0.0
        self.patience_s = timeout_s or DEFAULT_PATIENCE_S
        self.patiences.append((len(self.fates), self.patience_s))
        self.least_patience_s = min(patience_s for _, patience_s in self.patiences)
        # A lower bound lets nothing in; what is there may stay.
        self.ceiling = max(self.max_held, self.held)
        self.changed_s = now_s

    def deadline_s(self, i: int) -> float:
        """The instant at which the client of a request gives up: by what held when it came."""
        latest = bisect_right(self.patiences, i, key=itemgetter(0)) - 1
        return self.arrived[i] + self.patiences[latest][1]

    def note_level(self, now_s: float) -> None:
        """Keeps how many replicas there are from now on."""
        levels = self.levels
        level = (now_s, self.assigned, self.ready)
        if levels and levels[-1][0] == now_s:
            levels[-1] = level
        else:
            levels.append(level)

    @property
    def accepted(self) -> int:
        """Requests that were taken in."""
        return len(self.fates)

    @property
    def held(self) -> int:
        """Requests that wait or run."""
        return self.queued + self.ongoing
