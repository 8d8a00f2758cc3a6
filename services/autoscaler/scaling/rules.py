"""A deployment's scaling as `decide` takes it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

from services.autoscaler.scaling.policies import Policy
from services.autoscaler.scaling.windows import Window
from services.autoscaler.scaling.wishes import Wishes


class Rule(IntEnum):
    """What had the last word; the numbers are those of the API's ScaleDecision.Rule."""

    FIXED = 1
    MANUAL = 2
    INITIAL = 3
    POLICY = 4
    GAIN = 5
    MIN_REPLICAS = 6
    MAX_REPLICAS = 7
    UPSCALE_DELAY = 8
    DOWNSCALE_DELAY = 9
    DOWNSCALE_TO_ZERO_DELAY = 10
    FROM_ZERO = 11
    UNKNOWN_SIGNALS = 12
    FILLING_WINDOW = 13
    STARTING = 14
    NO_TRAFFIC = 15
    CUSTOM_FAILED = 16
    BUSY = 17
    WINDOW = 18


@dataclass(frozen=True, slots=True)
class Rules:
    """How the number of replicas of one deployment follows its load.

    Attributes:
        policy: turns load into a count; None: the count is `fixed`.
        fixed: replicas of a deployment without a policy.
        pinned: replicas set by hand; None if none are.
        minimum, maximum, initial: bounds, and what to begin with.
        upscaling_factor, downscaling_factor: share of the distance that one decision takes.
        upscale_delay_s, downscale_delay_s, to_zero_delay_s: the delays.
        look_back_s: length of the window that the policy's means are over; 0 if it has none.
        custom: the custom policy's function; empty if there is none.
        advisory: whether decisions are only made, not acted on.
        slots: requests that one replica works on at once.
        windows: times with a higher minimum.
        windowed: whether `minimum` is that of a window that is open.
    """

    policy: Policy | None = None
    fixed: int = 0
    pinned: int | None = None
    minimum: int = 0
    maximum: int = 1
    initial: int | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    upscale_delay_s: float = 3.0
    downscale_delay_s: float = 120.0
    to_zero_delay_s: float = 300.0
    look_back_s: float = 0.0
    custom: str = ""
    advisory: bool = False
    slots: int = 1
    windows: tuple[Window, ...] = ()
    windowed: bool = False

    def bounded(self, count: int) -> int:
        """The count within the bounds."""
        return max(self.minimum, min(self.maximum, count))

    def within(self, window_min: int) -> "Rules":
        """The rules while a window asks for so many replicas; `maximum` holds all the same."""
        raised = min(window_min, self.maximum)
        return replace(self, minimum=raised, windowed=True) if raised > self.minimum else self


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of a deployment between two decisions.

    Attributes:
        target: replicas that were decided on.
        fewest: the fewest wished for, over the delay of upscaling.
        most: the most wished for, over the delays of downscaling.
    """

    target: int
    fewest: Wishes = ()
    most: Wishes = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step from load to a count.

    Attributes:
        name: manual, fixed, initial, signals, policy, gain, bounds, delay or hold.
        count: replicas after it.
        sentence: what it did, for a person.
    """

    name: str
    count: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an outcome came about.

    Attributes:
        steps: from load to a count, in order.
        reason: why, in one sentence.
        flip: what would have led to another target.
    """

    steps: tuple[Step, ...]
    reason: str
    flip: str


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    Attributes:
        before: target until now; None if the deployment is new.
        target: replicas decided on.
        state: what to remember; its target is `before` if the decision is not acted on.
        rule: what had the last word.
        explain: tells how it came about; called at most once, and only if anybody asks: most looks
            at a deployment change nothing, and telling takes as long as deciding.
        applied: whether it is acted on.
    """

    before: int | None
    target: int
    state: State
    rule: Rule
    explain: Callable[[], Explanation] = field(repr=False, compare=False)
    applied: bool = True

    @cached_property
    def explanation(self) -> Explanation:
        """How it came about."""
        return self.explain()

    @property
    def steps(self) -> tuple[Step, ...]:
        """How it came about, in order."""
        return self.explanation.steps

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.explanation.reason

    @property
    def flip(self) -> str:
        """What would have led to another target."""
        return self.explanation.flip
