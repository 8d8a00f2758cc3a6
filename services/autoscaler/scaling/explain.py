"""Why a number of replicas was decided on, for a person. Pure.

Called when somebody asks, with what `decide` found on its way.
"""

from typing import NamedTuple

from services.autoscaler.scaling import wishes
from services.autoscaler.scaling.policies import Policy, Wish
from services.autoscaler.scaling.rules import Explanation, Rule, Rules, State, Step
from services.autoscaler.scaling.signals import Signals


class Course(NamedTuple):
    """What was found on the way from signals to a target, by a policy.

    Attributes:
        signals: what was seen.
        rules: what is declared.
        wish: of the policy.
        idle: whether more are wanted although nothing waits or runs.
        gained: more and fewer after the factors.
        bounded: both within the bounds.
        kept_fewer: the fewer, with the replicas that are starting.
        kept: what is remembered, with the target until now.
        target: replicas decided on.
        now_s: when.
    """

    signals: Signals
    rules: Rules
    wish: Wish
    idle: bool
    gained: tuple[int, int]
    bounded: tuple[int, int]
    kept_fewer: int
    kept: State
    target: int
    now_s: float

    @property
    def policy(self) -> Policy:
        """The policy that the wish is of."""
        assert self.rules.policy is not None, "a wish without a policy"
        return self.rules.policy


def without_policy(rules: Rules, target: int) -> Explanation:
    """A target that is set by hand or fixed."""
    if rules.pinned is not None:
        name = "manual"
        reason = f"{_replicas(target)} by hand, until released"
        flip = "releasing it would let the policy decide" if rules.policy else "releasing it"
    else:
        name = "fixed"
        reason = f"{_replicas(target)}, fixed: the deployment has no scaling policy"
        flip = "another `replicas`, or a scaling policy"
    return Explanation((Step(name, target, reason),), reason, flip)


def initial(rules: Rules, target: int) -> Explanation:
    """The target that a deployment begins with."""
    name, flip = "initial_replicas", "another initial_replicas"
    if rules.initial is None or (rules.windowed and rules.initial < target):
        name = _least_name(rules)
    if rules.windowed:
        flip = f"{flip} above {target}, or {_bounds_flip(rules, more=False)}"
    reason = f"a new deployment begins with {name}: {target}"
    return Explanation((Step("initial", target, reason),), reason, flip)


def held(signals: Signals, before: int, rules: Rules, rule: Rule, why: str) -> Explanation:
    """A target that stays because the policy has no answer."""
    if rule is Rule.UNKNOWN_SIGNALS:
        name, why, flip = "signals", f"{_unknown(signals)} not known", "known signals"
    else:
        name = "policy"
        flip = "a full window" if rule is Rule.FILLING_WINDOW else "an answer of the function"
    target = rules.bounded(before)
    if target == before:
        sentence = f"{why}, so {_replicas(before)} {'stays' if before == 1 else 'stay'}"
        return Explanation(
            (Step(name, target, sentence),), sentence, f"{flip} would let the policy decide"
        )
    bounds = _bounds_step(rules, before, target)
    return Explanation(
        (Step(name, before, why), bounds),
        f"{before} to {target}: {why}; {bounds.sentence}",
        _bounds_flip(rules, more=target < before),
    )


def from_zero(signals: Signals, rules: Rules, wish: Wish, target: int) -> Explanation:
    """The first replicas."""
    wanted = max(1, wish.more)
    assert rules.policy is not None, "a wish without a policy"
    if wish.unknown:
        why = f"{wish.unknown}; at least one"
    elif wish.more:
        why = rules.policy.sentence(signals, at_once=True)
    else:
        why = f"{rules.policy.sentence(signals, at_once=True)}; at least one"
    bounds = _bounds_step(rules, wanted, target)
    reason = f"from zero at once: {_requests(signals)}; {why}"
    flip = "no request that waits or runs"
    if target < wanted:
        reason += f"; {bounds.sentence}"
        flip = _bounds_flip(rules, more=True)
    return Explanation((Step("policy", wanted, why), bounds), reason, flip)


def by_policy(course: Course, rule: Rule) -> Explanation:
    """A target that a policy led to."""
    rules, wish, now = course.rules, course.wish, course.kept.target
    steps = [
        Step(
            "policy",
            _nearer((wish.more, wish.fewer), now),
            course.policy.sentence(course.signals, at_once=False),
        )
    ]
    wished = (wish.more, wish.fewer)
    if course.idle:
        wished = (now, wish.fewer)
        steps.append(Step("hold", now, "nothing waits or runs, so there are never more"))
    if course.gained != wished:
        steps.append(_gain_step(rules, now, wished, course.gained))
    steps.append(_bounds_step(rules, _nearer(course.gained, now), _nearer(course.bounded, now)))
    steps.append(Step("delay", course.target, _delay(course)))
    if course.target == course.kept_fewer > course.bounded[1]:
        starting = course.signals.starting > 0
        why = _starting(course.signals) if starting else _busy(course)
        steps.append(Step("hold", course.target, why))
    return Explanation(tuple(steps), _reason(course, rule, steps), _flip(course, rule))


def _delay(course: Course) -> str:
    rules, now, target = course.rules, course.kept.target, course.target
    if rules.bounded(now) != now:
        return "the bounds hold at once"
    if target == now:
        return _waiting(course)
    bound, delay_s = ("at least", rules.upscale_delay_s)
    if target < now:
        bound = "no more than"
        delay_s = rules.downscale_delay_s if target else rules.to_zero_delay_s
    wanted = f"were wanted for {delay_s:g} s" if delay_s else "are wanted"
    return f"{bound} {target} {wanted}"


def _waiting(course: Course) -> str:
    now = course.kept.target
    if course.bounded[0] > now:
        what, delay_s = "more are wanted", course.rules.upscale_delay_s
    elif course.kept_fewer < now:
        what, delay_s = "fewer are wanted", _down_delay_s(course.rules, now)
    else:
        return "nothing to wait for"
    return f"{what}, for {max(0.0, delay_s - _left_s(course)):.1f} of {delay_s:g} s"


def _left_s(course: Course) -> float:
    """Seconds until the target moves on if what is wanted stays as it is."""
    kept, target = course.kept, course.target
    if course.bounded[0] > max(target, kept.target):
        entry_s = wishes.first_instant(kept.fewest, lambda count: count > target)
        delay_s = course.rules.upscale_delay_s
    else:
        entry_s = wishes.first_instant(kept.most, lambda count: count < target)
        delay_s = _down_delay_s(course.rules, target)
    begun_s = course.now_s if entry_s is None else entry_s
    return max(0.0, begun_s + delay_s - course.now_s)


def _down_delay_s(rules: Rules, target: int) -> float:
    return rules.to_zero_delay_s if target == 1 else rules.downscale_delay_s


def _reason(course: Course, rule: Rule, steps: list[Step]) -> str:
    now, target, why = course.kept.target, course.target, steps[0].sentence
    if target == now and rule is Rule.POLICY:
        return f"{target} as it is: {why}"
    names = {
        Rule.MAX_REPLICAS: ("bounds",),
        Rule.MIN_REPLICAS: ("bounds",),
        Rule.WINDOW: ("bounds",),
        Rule.GAIN: ("gain",),
        Rule.STARTING: ("hold",),
        Rule.BUSY: ("hold",),
        Rule.NO_TRAFFIC: ("hold",),
    }.get(rule, ())
    if target != now or not names:
        names = (*names, "delay")
    what = f"{now} to {target}" if target != now else f"{target} for now"
    return "; ".join([f"{what}: {why}", *(s.sentence for s in steps if s.name in names)])


def _flip(course: Course, rule: Rule) -> str:
    rules = course.rules
    if rule is Rule.UPSCALE_DELAY:
        return f"another {_left_s(course):.1f} s of wanting more, or a shorter upscale_delay_s"
    if rule is Rule.DOWNSCALE_DELAY:
        return f"another {_left_s(course):.1f} s of wanting fewer, or a shorter downscale_delay_s"
    if rule is Rule.DOWNSCALE_TO_ZERO_DELAY:
        name = "downscale_to_zero_delay_s"
        return f"another {_left_s(course):.1f} s of wanting none, or a shorter {name}"
    if rule in (Rule.MAX_REPLICAS, Rule.MIN_REPLICAS, Rule.WINDOW):
        return _bounds_flip(rules, more=rule is Rule.MAX_REPLICAS)
    if rule is Rule.STARTING:
        return "starting replicas that get ready, or fail"
    if rule is Rule.BUSY:
        return "fewer ongoing requests"
    if rule is Rule.NO_TRAFFIC:
        return "a request that waits or runs"
    return _gain_flip(course) if rule is Rule.GAIN else _load_flip(course)


def _bounds_flip(rules: Rules, more: bool) -> str:
    if more:
        return f"max_replicas above {rules.maximum}"
    below = f"min_replicas below {rules.minimum}"
    return f"the end of the window, or its {below}" if rules.windowed else below


def _least_name(rules: Rules) -> str:
    """What sets the lower bound, for a person."""
    return "the open window's min_replicas" if rules.windowed else "min_replicas"


def _gain_flip(course: Course) -> str:
    up = course.target > course.kept.target
    flip = f"{'upscaling_factor' if up else 'downscaling_factor'} of 1"
    if course.rules.bounded(course.wish.more if up else course.wish.fewer) == course.target:
        flip += f" and {_bounds_flip(course.rules, more=up)}"
    return flip


def _load_flip(course: Course) -> str:
    """Loads beside the one that led to the target."""
    rules, now, target = course.rules, course.kept.target, course.target
    signals, policy = course.signals, course.policy
    if target > now:
        return f"{policy.load_within(signals, target - 1, margin=False)}" + _within(
            rules.upscale_delay_s
        )
    if target < now:
        return f"{policy.load_above(signals, target, margin=True)}" + _within(
            rules.downscale_delay_s if target else rules.to_zero_delay_s
        )
    flip = policy.load_above(signals, target, margin=False)
    if target == rules.maximum:
        flip += f", with {_bounds_flip(rules, more=True)},"
    flip += f" asks for more than {target}"
    if target > 0:
        flip += f"; {policy.load_within(signals, target - 1, margin=True)}"
        if target == rules.minimum:
            flip += f", with {_bounds_flip(rules, more=False)},"
        flip += " for fewer"
    return flip


def _within(delay_s: float) -> str:
    return f" at any time within {delay_s:g} s" if delay_s else ""


def _gain_step(rules: Rules, now: int, wished: tuple[int, int], gained: tuple[int, int]) -> Step:
    up = gained[0] != wished[0]
    factor = rules.upscaling_factor if up else rules.downscaling_factor
    name = "upscaling_factor" if up else "downscaling_factor"
    before, after = (wished[0], gained[0]) if up else (wished[1], gained[1])
    return Step(
        "gain", after, f"{name} {factor:g} of the way from {now} to {before} leads to {after}"
    )


def _bounds_step(rules: Rules, count: int, bounded: int) -> Step:
    if bounded < count:
        sentence = f"max_replicas is {rules.maximum}, so {count} becomes {bounded}"
    elif bounded > count:
        sentence = f"{_least_name(rules)} is {rules.minimum}, so {count} becomes {bounded}"
    else:
        sentence = f"{bounded} is within {rules.minimum} to {rules.maximum}"
    return Step("bounds", bounded, sentence)


def _nearer(counts: tuple[int, int], now: int) -> int:
    """What both counts ask for: more than now, fewer than now, or what there is."""
    more, fewer = counts
    return more if more > now else min(now, fewer)


def _starting(signals: Signals) -> str:
    what = "a replica that is" if signals.starting == 1 else f"{signals.starting} replicas that are"
    return f"{what} starting had no chance yet"


def _busy(course: Course) -> str:
    ongoing, count = course.signals.ongoing, course.kept_fewer
    requests = "1 ongoing request needs" if ongoing == 1 else f"{ongoing} ongoing requests need"
    return f"{requests} {_replicas(count)}, and a busy one is not taken"


def _requests(signals: Signals) -> str:
    if signals.held_load == 1:
        return "1 request waits or runs"
    return f"{signals.held_load} requests wait or run"


def _unknown(signals: Signals) -> str:
    missing = [
        name
        for name, value in (("queued", signals.queued), ("ongoing", signals.ongoing))
        if value is None
    ]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'}"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
