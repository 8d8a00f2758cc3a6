"""Whether a look would come out as the last one did, found at a tenth of its cost. Pure.

Policies ask for no fewer replicas the higher the load is. So as long as each load within the
policy's window would, if it stood alone, ask for as many replicas as the last look did, their mean
does too. And as long as it does and no other number of replicas is busy, only the end of a delay
changes a decision. Not for policies that go by more than the load.
"""

from collections import deque

from services.autoscaler.scaling.decide import held_back
from services.autoscaler.scaling.policies import OngoingRequests, Policy
from services.autoscaler.scaling.rules import Outcome, Rules
from services.autoscaler.scaling.signals import Signals
from services.autoscaler.simulation.agenda import NEVER

_TOLERANCE_S = 1e-3
_LITTLE = 1e-3
"""A mean load as low as any but none."""

MAX_REMEMBERED = 10_000

Bands = tuple[tuple[float, float], tuple[float, float]]
"""Between which means of the load, and of the load that is held."""


class Calm:
    """What is known of one deployment's loads since its last look."""

    __slots__ = (
        "_bands",
        "_counts",
        "_fits",
        "_held_back",
        "_hungry",
        "_load",
        "_other_hold",
        "_other_until_s",
        "_rules",
        "_some_until_s",
        "_starts",
        "_stood",
        "_wish",
        "_zero_until_s",
    )

    def __init__(self, rules: Rules) -> None:
        """Knows nothing: the next look is needed.

        Args:
            rules: what is declared.
        """
        self._rules = rules
        self._counts: dict[float, tuple[int, int]] = {}
        self._wish: tuple[int, int] | None = None
        self._hungry = False
        self._bands: Bands | None = None
        # Fewer are wanted than there are: then it matters how many are busy.
        self._fits = True
        self._held_back = 0
        self._other_hold = False
        self._load = 0
        # How many replicas start and are ready; whatever changes them calls for a look.
        self._starts = (0, 0)
        # Loads that stood within the window, each until when.
        self._stood: deque[tuple[float, int]] = deque()
        # Until when no load, some load, and one that asks for other counts have stood.
        self._zero_until_s = self._some_until_s = self._other_until_s = -NEVER

    def looked(self, now_s: float, signals: Signals, outcome: Outcome) -> None:
        """Takes note of a look.

        Args:
            now_s: when it was.
            signals: what was seen, with the means.
            outcome: what was decided.
        """
        held, policy, before = signals.held_load, self._rules.policy, self._wish
        self._wish = None
        if held is None or signals.redelivered or policy is None:
            # What stands from now on is unlike any load: it keeps its window from being calm.
            self._stand(now_s, -1)
            return
        self._stand(now_s, held)
        self._starts = (signals.starting, signals.ready)
        wish = policy.wish(signals, False)
        if wish.unknown or not outcome.target:
            return
        self._wish = (wish.more, wish.fewer)
        if self._wish != before:
            self._bands = self._bands_of(policy, signals)
            others = (until_s for until_s, load in self._stood if self._is_other(load))
            self._other_until_s = max(others, default=-NEVER)
        # Where more are wanted it matters whether there is any load: without, there are never more.
        self._hungry = wish.more > outcome.target
        self._fits = wish.fewer >= outcome.target
        self._held_back = self._kept(signals.ongoing or 0)
        if outcome.target != outcome.before or (self._hungry and not held):
            self._wish = None

    def until_s(self, now_s: float, queued: int, ongoing: int) -> float:
        """Until when no look is needed if that is seen from now on; `now_s`: it is needed now."""
        load, wish = queued + ongoing, self._wish
        if wish is None:
            return now_s
        self._stand(now_s, load)
        self._other_hold = self._kept(ongoing) != self._held_back
        if self._other_hold or (self._hungry and not load):
            return now_s
        look_back_s = self._rules.look_back_s
        if not look_back_s:
            return NEVER if self._count(load) == wish else now_s
        since_s = now_s - look_back_s
        if self._other_until_s > since_s or (load and self._count(load) != wish):
            return now_s
        if load and self._zero_until_s <= since_s:
            return NEVER
        if self._some_until_s <= since_s and not load:
            return NEVER if wish == self._count(0.0) else now_s
        # None is among the loads: the mean is anything above it as long as there was some.
        if wish != self._count(_LITTLE) or self._some_until_s <= since_s + _TOLERANCE_S:
            return now_s
        return NEVER if load else self._some_until_s + look_back_s - _TOLERANCE_S

    def allows(self, mean_load: float, mean_held_load: float) -> bool:
        """Whether means over the window ask for what the last look asked for."""
        bands = self._bands
        if self._wish is None or bands is None:
            return False
        if self._other_hold or (self._hungry and not self._load):
            return False
        (low, high), (held_low, held_high) = bands
        return low < mean_load < high and held_low < mean_held_load < held_high

    def _kept(self, ongoing: int) -> int:
        """How many replicas the load or what is ongoing keeps."""
        if self._fits or self._wish is None:
            return 0
        return max(self._wish[1], held_back(*self._starts, ongoing, self._rules))

    def _bands_of(self, policy: Policy, signals: Signals) -> Bands | None:
        """Between which means the last look's counts lie; None if that cannot be told."""
        if not isinstance(policy, OngoingRequests) or self._wish is None:
            return None
        low, high = (
            (
                policy.largest_load(signals, count - 1, margin) + _LITTLE,
                policy.largest_load(signals, count, margin) - _LITTLE,
            )
            for count, margin in zip(self._wish, (False, True), strict=True)
        )
        return low, high

    def _stand(self, now_s: float, load: int) -> None:
        """What was seen stood until now, and `load` stands from now on."""
        before, self._load = self._load, load
        if before:
            self._some_until_s = now_s
            if self._is_other(before):
                self._other_until_s = now_s
        else:
            self._zero_until_s = now_s
        stood = self._stood
        if stood and stood[-1][1] == before:
            stood.pop()
        stood.append((now_s, before))
        since_s = now_s - self._rules.look_back_s
        while stood[0][0] <= since_s and len(stood) > 1:
            stood.popleft()

    def _is_other(self, load: int) -> bool:
        """Whether some load asks for other counts than the last look did."""
        return load < 0 or (load > 0 and self._count(load) != self._wish)

    def _count(self, load: float) -> tuple[int, int]:
        """What a load asks for if it stands alone."""
        counts = self._counts.get(load)
        if counts is None:
            policy = self._rules.policy
            assert policy is not None, "only policies have wishes"
            alone = Signals(queued=int(load), ongoing=0, mean_load=load, mean_held_load=load)
            wish = policy.wish(alone, False)
            if len(self._counts) >= MAX_REMEMBERED:
                self._counts.clear()
            counts = self._counts[load] = (wish.more, wish.fewer)
        return counts
