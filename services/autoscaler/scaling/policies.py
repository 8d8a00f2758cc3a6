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
        unknown: why there is no answer; empty if there is one.
        filling: the window is not full yet, which passes by itself.
    """

    more: int = 0
    fewer: int = 0
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
    """Turns signals into a wish. Sentences are asked for only where somebody reads them."""

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """How many replicas are asked for.

        Args:
            signals: what is seen; the loads are known.
            at_once: whether to go by the load of this instant: there is no replica yet.
        """
        ...

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """How a wish that is known came about, for a person."""
        ...

    def load_above(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that so many replicas do not suffice for, for a person.

        Args:
            signals: what is seen.
            replicas: how many.
            margin: whether they must suffice with the policy's margin, as for fewer replicas.
        """
        ...

    def load_within(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that so many replicas suffice for, for a person."""
        ...


class _ByLoad:
    """What the policies that measure a load against a capacity have in common."""

    __slots__ = ()

    def largest_load(self, signals: Signals, replicas: int, margin: bool) -> float:
        """The largest load that so many replicas suffice for."""
        raise NotImplementedError

    def load_above(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that so many replicas do not suffice for."""
        return f"a load above {_rounded_up(self.largest_load(signals, replicas, margin))}"

    def load_within(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that so many replicas suffice for."""
        return f"a load of {_rounded_down(self.largest_load(signals, replicas, margin))} or less"


@dataclass(frozen=True, slots=True)
class OngoingRequests(_ByLoad):
    """Mean of (queued + ongoing) over the look-back period, divided by the target [Ray Serve]."""

    target: float
    look_back_s: float

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The mean load divided by the target, rounded up."""
        capacity = Capacity(self.target)
        if at_once:
            return Wish(*_by_load(capacity, signals))
        if signals.mean_load is None or signals.mean_held_load is None:
            return Wish(
                unknown=f"the mean over {self.look_back_s:g} s is not known yet", filling=True
            )
        fewer = capacity.replicas(signals.mean_held_load * (1 + MEASURED_MARGIN_RATIO))
        # A mean of nothing does not know of the request that just came.
        return Wish(
            capacity.replicas(signals.mean_load), max(fewer, min(1, signals.held_load or 0))
        )

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """The mean, or the load of this instant, and what it is divided by."""
        wish = self.wish(signals, at_once)
        load = (
            f"{signals.load} request{'' if signals.load == 1 else 's'} now"
            if at_once
            else f"mean of {signals.mean_load:.2f} requests over {self.look_back_s:g} s"
        )
        return f"{load} / {self.target:g} per replica = {wish.more}" + _kept(wish)

    def largest_load(self, signals: Signals, replicas: int, margin: bool) -> float:
        """The target times the replicas, less the margin."""
        return self.target * replicas / (1 + MEASURED_MARGIN_RATIO * margin)

    def load_above(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A mean load that so many replicas do not suffice for."""
        return f"a mean load above {_rounded_up(self.largest_load(signals, replicas, margin))}"

    def load_within(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A mean load that so many replicas suffice for."""
        load = self.largest_load(signals, replicas, margin)
        return f"a mean load of {_rounded_down(load)} or less"


@dataclass(frozen=True, slots=True)
class QueueDepth(_ByLoad):
    """At most so many requests or tasks for each replica [Beam]."""

    max_tasks_per_replica: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """(queued + ongoing) / `max_tasks_per_replica`, rounded up."""
        return Wish(*_by_load(Capacity(self.max_tasks_per_replica), signals))

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """The load, and what it is divided by."""
        wish = self.wish(signals, at_once)
        return (
            f"({_loads(signals)}) / {self.max_tasks_per_replica} per replica = {wish.more}"
            + _kept(wish)
        )

    def largest_load(self, signals: Signals, replicas: int, margin: bool) -> float:
        """So many for each replica."""
        return Capacity(self.max_tasks_per_replica).load(replicas)


@dataclass(frozen=True, slots=True)
class RequestLatency(_ByLoad):
    """The last of all waiting and running requests starts within the desired latency [Beam].

    With mean service time s, c slots per replica and r replicas, the n-th request starts after
    floor((n - 1) / (c·r)) service times, so r suffices for n ≤ r·c·(floor(desired / s) + 1).
    """

    desired_s: float
    assumed_s: float | None
    slots: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The fewest replicas that keep the latency."""
        more = self._capacity(signals, margin=False).replicas(signals.load or 0)
        return Wish(more, self._capacity(signals, margin=True).replicas(signals.held_load or 0))

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """The load, and what one replica can take in time."""
        wish = self.wish(signals, at_once)
        turns = round(self._capacity(signals, margin=False).per_replica / self.slots)
        return (
            f"({_loads(signals)}) / ({_count(self.slots, 'slot')} · {_count(turns, 'turn')} within "
            f"{self.desired_s:g} s at {self._service(signals)}) = {wish.more}" + _kept(wish)
        )

    def largest_load(self, signals: Signals, replicas: int, margin: bool) -> float:
        """What so many replicas can take in time."""
        return self._capacity(signals, margin).load(replicas)

    def _capacity(self, signals: Signals, margin: bool) -> Capacity:
        service_s = self.assumed_s if signals.service_time_s is None else signals.service_time_s
        if service_s is None:
            return Capacity(self.slots)
        if margin and signals.service_time_s is not None:
            service_s *= 1 + MEASURED_MARGIN_RATIO
        # A service time of nothing fits any number of turns.
        turns = math.floor(self.desired_s / max(service_s, 1e-6) + SLACK) + 1
        return Capacity(self.slots * turns)

    def _service(self, signals: Signals) -> str:
        if signals.service_time_s is not None:
            return f"{signals.service_time_s:.3g} s each"
        if self.assumed_s is not None:
            return f"an assumed {self.assumed_s:g} s each"
        return "an unknown service time, so each is taken to last longer"


@dataclass(frozen=True, slots=True)
class QueueSize(_ByLoad):
    """At most so many requests are left waiting [ViewComfy]."""

    queue_size: int
    slots: int

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The fewest replicas with at most `queue_size` requests left waiting."""
        return Wish(*_by_load(Capacity(self.slots, self.queue_size), signals))

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """The load, how much of it may wait, and the slots of a replica."""
        wish = self.wish(signals, at_once)
        return (
            f"({_loads(signals)} - {self.queue_size} that may wait) / "
            f"{_count(self.slots, 'slot')} = {wish.more}" + _kept(wish)
        )

    def largest_load(self, signals: Signals, replicas: int, margin: bool) -> float:
        """All slots, and as many as may wait."""
        return Capacity(self.slots, self.queue_size).load(replicas)


@dataclass(frozen=True, slots=True)
class Custom:
    """What a function of one's own returned; it was called before, and its answer is a signal."""

    function: str

    def wish(self, signals: Signals, at_once: bool) -> Wish:
        """The answer, rounded up."""
        answer = signals.custom
        if signals.custom_error or answer is None:
            return Wish(unknown=f"{self.function}: {signals.custom_error or 'no answer yet'}")
        if not 0 <= answer < math.inf:
            return Wish(unknown=f"{self.function}: returned {answer:g}, which is no count")
        count = math.ceil(answer - SLACK)
        return Wish(count, count)

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """The answer."""
        return f"{self.function} returned {signals.custom:g}"

    def load_above(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A higher answer."""
        return f"an answer of {self.function} above {replicas}"

    def load_within(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A lower answer."""
        return f"an answer of {self.function} of {replicas} or less"


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
        return Wish(max(w.more for w in wishes), max(w.fewer for w in wishes))

    def sentence(self, signals: Signals, at_once: bool) -> str:
        """How each wish came about."""
        sentences = "; ".join(policy.sentence(signals, at_once) for policy in self.policies)
        return f"the largest of: {sentences}"

    def load_above(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that is too much by any policy."""
        return " or ".join(p.load_above(signals, replicas, margin) for p in self.policies)

    def load_within(self, signals: Signals, replicas: int, margin: bool) -> str:
        """A load that is not too much by any policy."""
        return " and ".join(p.load_within(signals, replicas, margin) for p in self.policies)


def _by_load(capacity: Capacity, signals: Signals) -> tuple[int, int]:
    return capacity.replicas(signals.load or 0), capacity.replicas(signals.held_load or 0)


def _loads(signals: Signals) -> str:
    repeated = f" - {signals.redelivered} redelivered" if signals.redelivered else ""
    return f"{signals.queued} queued + {signals.ongoing} ongoing{repeated}"


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _kept(wish: Wish) -> str:
    return f" (up to {wish.fewer} may stay)" if wish.fewer > wish.more else ""


def _rounded_up(load: float) -> str:
    """So that what is above the number is above the load."""
    return _in_digits(math.ceil(load * 1000 - SLACK) / 1000)


def _rounded_down(load: float) -> str:
    """So that what is within the number is within the load."""
    return _in_digits(math.floor(load * 1000 + SLACK) / 1000)


def _in_digits(load: float) -> str:
    return f"{load:.3f}".rstrip("0").rstrip(".")
