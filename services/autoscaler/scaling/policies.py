"""How many replicas a load asks for. Pure.

Every policy but the custom one comes down to the same: r replicas suffice for a load of at most
`per_replica`·r + `allowance`. So the count is ceil((load - allowance) / per_replica), at least one
if there is any load, and the load at which it changes can be told.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from services.autoscaler.scaling.signals import Signals

SLACK = 1e-9
"""Quotients such as 0.3 / 0.1 miss their exact value by some 1e-16."""

MEASURED_MARGIN_RATIO = 0.1
"""How much more than measured must still fit before there are fewer replicas.

Means and service times waver. Without a margin a steady load beside a threshold would swing between
two counts, each swing a cold start.
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """How many replicas a policy asks for.

    Attributes:
        more: what the load that may ask for more asks for.
        fewer: what must stay, by all load there is and with the policy's margin. A target between
            both is right as it is.
        sentence: how that came about.
        unknown: why there is no answer; empty if there is one.
        filling: the window is not full yet, which passes by itself.
    """

    more: int = 0
    fewer: int = 0
    sentence: str = ""
    unknown: str = ""
    filling: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What replicas suffice for: `per_replica` requests each, and `allowance` left waiting."""

    per_replica: float
    allowance: float = 0.0

    def replicas(self, load: float) -> int:
        """The fewest replicas that suffice, at least one if there is any load."""
        if load <= SLACK:
            return 0
        return max(1, math.ceil((load - self.allowance) / self.per_replica - SLACK))

    def load(self, replicas: int) -> float:
        """The largest load that so many replicas suffice for."""
        return self.per_replica * replicas + self.allowance if replicas > 0 else 0.0


class Policy(Protocol):
    """Turns signals into a wish."""

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """How many replicas are asked for.

        Args:
            signals: what is seen; the loads are known.
            at_once: whether to go by the load of this instant: there is no replica yet.
        """
        ...

    def threshold(self, signals: Signals, target: int) -> str:
        """Which load would ask for more or fewer than `target`, for a person; may be empty."""
        ...


@dataclass(frozen=True, slots=True)
class OngoingRequests:
    """Mean of (queued + ongoing) over the look-back period, divided by the target [Ray Serve]."""

    target: float
    look_back_s: float

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The mean load divided by the target, rounded up."""
        capacity = Capacity(self.target)
        if at_once:
            load: float = signals.load or 0
            held: float = signals.held_load or 0
            return Wish(
                capacity.replicas(load),
                capacity.replicas(held),
                f"{load:g} requests now / {self.target:g} per replica = {capacity.replicas(load)}",
            )
        if signals.mean_load is None or signals.mean_held_load is None:
            return Wish(
                unknown=f"the mean over {self.look_back_s:g} s is not known yet", filling=True
            )
        more = capacity.replicas(signals.mean_load)
        fewer = capacity.replicas(signals.mean_held_load * (1 + MEASURED_MARGIN_RATIO))
        return Wish(
            more,
            fewer,
            f"mean of {signals.mean_load:.2f} requests over {self.look_back_s:g} s / "
            f"{self.target:g} per replica = {more}" + _kept(more, fewer),
        )

    def threshold(self, signals: Signals, target: int) -> str:
        """The mean loads beside which the count changes."""
        fewer = self.target * (target - 1) / (1 + MEASURED_MARGIN_RATIO)
        return _threshold("a mean load", Capacity(self.target).load(target), fewer, target)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """At most so many requests or tasks for each replica [Beam]."""

    max_tasks_per_replica: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """(queued + ongoing) / `max_tasks_per_replica`, rounded up."""
        capacity = Capacity(self.max_tasks_per_replica)
        more, fewer = _by_load(capacity, signals)
        return Wish(
            more,
            fewer,
            f"({_loads(signals)}) / {self.max_tasks_per_replica} per replica = {more}"
            + _kept(more, fewer),
        )

    def threshold(self, signals: Signals, target: int) -> str:
        """The loads beside which the count changes."""
        capacity = Capacity(self.max_tasks_per_replica)
        return _threshold("a load", capacity.load(target), capacity.load(target - 1), target)


@dataclass(frozen=True, slots=True)
class RequestLatency:
    """The last of all waiting and running requests starts within the desired latency [Beam].

    With mean service time s, c slots per replica and r replicas, the n-th request starts after
    floor((n - 1) / (c·r)) service times, so r suffices for n ≤ r·c·(floor(desired / s) + 1).
    """

    desired_s: float
    assumed_s: float | None
    slots: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The fewest replicas that keep the latency."""
        service_s = signals.service_time_s
        capacity = self._capacity(service_s)
        more, _ = _by_load(capacity, signals)
        slower = None if service_s is None else service_s * (1 + MEASURED_MARGIN_RATIO)
        fewer = self._capacity(slower).replicas(signals.held_load or 0)
        turns = round(capacity.per_replica / self.slots)
        return Wish(
            more,
            fewer,
            f"({_loads(signals)}) / ({self.slots} slots · {turns} turns within "
            f"{self.desired_s:g} s at {self._service(service_s)}) = {more}" + _kept(more, fewer),
        )

    def threshold(self, signals: Signals, target: int) -> str:
        """The loads beside which the count changes."""
        capacity = self._capacity(signals.service_time_s)
        return _threshold("a load", capacity.load(target), capacity.load(target - 1), target)

    def _capacity(self, service_s: float | None) -> Capacity:
        service_s = self.assumed_s if service_s is None else service_s
        if service_s is None:
            return Capacity(self.slots)
        # A service time of nothing fits any number of turns.
        turns = math.floor(self.desired_s / max(service_s, 1e-6) + SLACK) + 1
        return Capacity(self.slots * turns)

    def _service(self, service_s: float | None) -> str:
        if service_s is not None:
            return f"{service_s:.3g} s each"
        if self.assumed_s is not None:
            return f"an assumed {self.assumed_s:g} s each"
        return "an unknown service time, so each is taken to last longer"


@dataclass(frozen=True, slots=True)
class QueueSize:
    """At most so many requests are left waiting [ViewComfy]."""

    queue_size: int
    slots: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The fewest replicas with at most `queue_size` requests left waiting."""
        capacity = Capacity(self.slots, self.queue_size)
        more, fewer = _by_load(capacity, signals)
        return Wish(
            more,
            fewer,
            f"({_loads(signals)} - {self.queue_size} that may wait) / {self.slots} slots = {more}"
            + _kept(more, fewer),
        )

    def threshold(self, signals: Signals, target: int) -> str:
        """The loads beside which the count changes."""
        capacity = Capacity(self.slots, self.queue_size)
        return _threshold("a load", capacity.load(target), capacity.load(target - 1), target)


@dataclass(frozen=True, slots=True)
class Custom:
    """What a function of one's own returned; it was called before, and its answer is a signal."""

    function: str

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The answer, rounded up."""
        if signals.custom_error or signals.custom is None:
            return Wish(unknown=f"{self.function}: {signals.custom_error or 'no answer yet'}")
        count = math.ceil(signals.custom - SLACK)
        return Wish(count, count, f"{self.function} returned {signals.custom:g}")

    def threshold(self, signals: Signals, target: int) -> str:
        """Only the function knows."""
        return f"another answer of {self.function}"


@dataclass(frozen=True, slots=True)
class MaxOf:
    """The largest of several."""

    policies: tuple[Policy, ...]

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The largest count; unknown if any is unknown, for that one might be the largest."""
        wishes = [policy.wish(signals, at_once) for policy in self.policies]
        for wish in wishes:
            if wish.unknown:
                return wish
        sentences = "; ".join(wish.sentence for wish in wishes)
        more, fewer = max(w.more for w in wishes), max(w.fewer for w in wishes)
        return Wish(more, fewer, f"the largest of: {sentences}")

    def threshold(self, signals: Signals, target: int) -> str:
        """Each policy's threshold."""
        return "; or ".join(p.threshold(signals, target) for p in self.policies)


def _by_load(capacity: Capacity, signals: Signals) -> tuple[int, int]:
    return capacity.replicas(signals.load or 0), capacity.replicas(signals.held_load or 0)


def _loads(signals: Signals) -> str:
    repeated = f" - {signals.redelivered} redelivered" if signals.redelivered else ""
    return f"{signals.queued} queued + {signals.ongoing} ongoing{repeated}"


def _kept(more: int, fewer: int) -> str:
    return f", and {fewer} are kept" if fewer > more else ""


def _threshold(what: str, most: float, least: float, target: int) -> str:
    above = f"{what} above {most:g} asks for more than {target}"
    return f"{above}, one of {least:g} or less for fewer" if target > 0 else above
