"""What one deployment's scaling remembers between two looks. Pure: time is an argument.

The same object runs in the autoscaler and in the simulator.
"""

import math
from dataclasses import dataclass, replace

from services.autoscaler.scaling.decide import decide
from services.autoscaler.scaling.load_window import LoadWindow
from services.autoscaler.scaling.rules import Outcome, Rule, Rules, State
from services.autoscaler.scaling.signals import Signals
from services.autoscaler.scaling.windows import Windows

UNKNOWN_AT_FIRST_S = 10.0
"""How long a deployment may be unknown to metrics at first without a word about it."""

REPEAT_AFTER_S = 60.0
"""How long a refusal of the same rule is not worth another record."""

_SETTLED = (Rule.POLICY, Rule.FIXED, Rule.MANUAL)
"""Rules that leave the target as it is because it is right."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a deployment.

    Attributes:
        signals: what was seen, means included.
        before: what was remembered.
        outcome: what was decided.
        noteworthy: whether it belongs into the journal: the target changes, or a change is
            refused for a new reason.
    """

    signals: Signals
    before: State | None
    outcome: Outcome
    noteworthy: bool


class Scaler:
    """One deployment's memory."""

    __slots__ = (
        "_advised",
        "_first_s",
        "_idle",
        "_noted",
        "_refusing",
        "_rules",
        "_service_time_s",
        "_since_start",
        "_state",
        "_tells_s",
        "_window",
        "_windows",
    )

    def __init__(self, rules: Rules, state: State | None, known_before: bool) -> None:
        """Begins to look.

        Args:
            rules: what is declared.
            state: what is known of the target; None if the deployment is new.
            known_before: whether the deployment was there before this process. Its load until now
                is not known then, and the window must fill first, so that a restart changes
                nothing by itself.
        """
        self._rules = rules
        self._state = state
        self._since_start = known_before
        self._window = LoadWindow(rules.look_back_s)
        self._windows = Windows(rules.windows)
        self._service_time_s: float | None = None
        self._noted: dict[Rule, float] = {}
        # The refusal that was told last and still stands.
        self._refusing: tuple[Rule, str] | None = None
        # When it was first looked at in vain; minus infinity once anything has been known.
        self._first_s: float | None = None
        self._tells_s = math.inf
        self._advised: tuple[int, float] | None = None
        self._idle: Look | None = None

    @property
    def rules(self) -> Rules:
        """What is declared."""
        return self._rules

    def settled(self, wall_s: float) -> bool:
        """Whether another look at a deployment without load would come out as the last one did.

        Args:
            wall_s: seconds since the epoch: a window may have opened or closed.
        """
        idle = self._idle
        return idle is not None and idle.signals.window_min == self.window_min(wall_s)

    def window_min(self, wall_s: float) -> int:
        """The most replicas that an open window asks for; 0 if none is open.

        Args:
            wall_s: seconds since the epoch.
        """
        return self._windows.min_replicas(wall_s)

    def windows_until_s(self, wall_s: float) -> float:
        """Until when that stays as it is; infinite without windows."""
        return self._windows.until_s(wall_s)

    @property
    def tells_s(self) -> float:
        """When the refusal that stands is told, if it still does; infinite if there is no such."""
        return self._tells_s

    @property
    def target(self) -> int | None:
        """Replicas decided on; None before the first look."""
        return None if self._state is None else self._state.target

    def declare(self, rules: Rules) -> None:
        """Takes other rules; what is remembered of the target stays."""
        if rules == self._rules:
            return
        if rules.look_back_s != self._window.length_s:
            self._window = LoadWindow(rules.look_back_s)
            self._since_start = True
        if rules.windows != self._rules.windows:
            self._windows = Windows(rules.windows)
        self._rules = rules
        self._idle = None

    def look(self, now_s: float, signals: Signals) -> Look:
        """Decides by what is seen now.

        Args:
            now_s: seconds on a clock that never goes back.
            signals: what is seen, without means.
        """
        idle = self._idle
        if idle is not None and _idle(signals) and signals.window_min == idle.signals.window_min:
            return idle
        before = self._state
        signals = self._completed(now_s, signals)
        outcome = decide(signals, self._rules, before, now_s)
        self._state = outcome.state
        noteworthy = self._noteworthy(now_s, outcome, signals.custom_error)
        look = Look(signals, before, outcome, noteworthy)
        settled = not look.noteworthy and not self._rules.custom and _settled(outcome, signals)
        self._idle = look if settled else None
        return look

    def remember(self, now_s: float, load: float, held_load: float) -> tuple[float, float] | None:
        """Takes note of loads without a decision; returns their means over the window.

        For whoever knows that a look would come out as the last one did.
        """
        if not self._rules.look_back_s:
            return None
        self._window.add(now_s, load, held_load)
        return self._window.means(now_s)

    def _completed(self, now_s: float, signals: Signals) -> Signals:
        """The signals with means over the window, and the service time last known."""
        held = signals.held_load
        if signals.service_time_s is not None:
            self._service_time_s = signals.service_time_s
        if held is not None:
            self._first_s = -math.inf
        else:
            # A gap: what came before it says nothing of what comes after.
            self._window.clear()
            self._since_start = self._since_start or self._first_s == -math.inf
            return replace(signals, service_time_s=self._service_time_s)
        if not self._rules.look_back_s:
            if signals.service_time_s is not None or self._service_time_s is None:
                return signals
            return replace(signals, service_time_s=self._service_time_s)
        self._window.add(now_s, signals.load or 0, held)
        if self._since_start and not self._window.covers(now_s):
            return replace(signals, service_time_s=self._service_time_s)
        self._since_start = False
        means = self._window.means(now_s)
        assert means is not None, "a load was just added"
        return replace(
            signals,
            mean_load=round(means[0], 6),
            mean_held_load=round(means[1], 6),
            service_time_s=self._service_time_s,
        )

    def _noteworthy(self, now_s: float, outcome: Outcome, why: str) -> bool:
        self._tells_s = math.inf
        if outcome.applied and outcome.target != outcome.before:
            # Whatever refuses next does so for a new reason.
            self._noted.clear()
            self._refusing = None
            return True
        if outcome.target != outcome.before:
            # Advice not taken is repeated only when it changes, or when it comes again later.
            before = self._advised
            self._advised = (outcome.target, now_s)
            return (
                before is None or before[0] != outcome.target or now_s - before[1] >= REPEAT_AFTER_S
            )
        if outcome.rule in _SETTLED:
            self._refusing = None
            return False
        if outcome.rule is Rule.UNKNOWN_SIGNALS and self._is_new(now_s):
            return False
        if (outcome.rule, why) == self._refusing:
            # A refusal that merely goes on is told once.
            return False
        noted_s = self._noted.get(outcome.rule)
        if noted_s is not None and now_s - noted_s < REPEAT_AFTER_S:
            # Not now; if it still stands when the time is over, it is told then.
            self._tells_s = noted_s + REPEAT_AFTER_S
            return False
        self._refusing = (outcome.rule, why)
        self._noted[outcome.rule] = now_s
        return True

    def _is_new(self, now_s: float) -> bool:
        """Whether nothing has been known yet, as is to be expected for a moment."""
        if self._first_s is None:
            self._first_s = now_s
        return now_s - self._first_s < UNKNOWN_AT_FIRST_S


def _idle(signals: Signals) -> bool:
    return (
        not signals.queued
        and not signals.ongoing
        and signals.queued is not None
        and (signals.ongoing is not None and not signals.starting)
    )


def _settled(outcome: Outcome, signals: Signals) -> bool:
    """Whether the next look at a deployment without load comes out the same, whenever it is."""
    state = outcome.state
    return (
        outcome.target == outcome.before == state.target
        and outcome.rule in (Rule.POLICY, Rule.MIN_REPLICAS, Rule.WINDOW)
        and _idle(signals)
        and not signals.mean_held_load
        and len(state.most) == 1
        and len(state.fewest) == 1
    )
