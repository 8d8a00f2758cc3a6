"""How many replicas a deployment should have, and why. Pure: time is an argument.

The steps, each with its sentence: policy, gain, bounds, delay, hold. Nothing here is rounded to no
step at all, counts ticks instead of seconds, or takes what is not known for zero.
"""

import math

from services.autoscaler.scaling import wishes
from services.autoscaler.scaling.policies import SLACK, Custom, Wish
from services.autoscaler.scaling.rules import Outcome, Rule, Rules, State, Step
from services.autoscaler.scaling.signals import Signals


def decide(signals: Signals, rules: Rules, state: State | None, now_s: float) -> Outcome:
    """One decision.

    Args:
        signals: what is seen.
        rules: what is declared.
        state: what was remembered; None if the deployment is new.
        now_s: seconds on a clock that never goes back, the one `state` is on.
    """
    if rules.policy is None or rules.pinned is not None:
        return _without_policy(rules, state)
    if state is None:
        return _initial(rules, now_s)
    if signals.held_load is None:
        return _held(
            rules,
            state,
            Rule.UNKNOWN_SIGNALS,
            "signals",
            f"{_unknown(signals)} not known",
            "known signals would let the policy decide",
        )
    at_once = state.target == 0 and signals.held_load > 0
    wish = rules.policy.wish(signals, at_once)
    if at_once and (wish.unknown or wish.more or not isinstance(rules.policy, Custom)):
        return _from_zero(signals, rules, state, wish, now_s)
    if wish.unknown:
        rule = Rule.FILLING_WINDOW if wish.filling else Rule.CUSTOM_FAILED
        flip = "a full window would" if wish.filling else "an answer of the function would"
        return _held(rules, state, rule, "policy", wish.unknown, f"{flip} let the policy decide")
    return _by_policy(signals, rules, state, wish, now_s)


def _without_policy(rules: Rules, state: State | None) -> Outcome:
    before = state.target if state else None
    if rules.pinned is not None:
        target, rule, name = rules.pinned, Rule.MANUAL, "manual"
        reason = f"{_replicas(target)} by hand, until released"
        flip = "releasing it would let the policy decide" if rules.policy else "releasing it"
    else:
        target, rule, name = rules.fixed, Rule.FIXED, "fixed"
        reason = f"{_replicas(target)}, fixed: the deployment has no scaling policy"
        flip = "another `replicas`, or a scaling policy"
    return Outcome(before, target, State(target), rule, (Step(name, target, reason),), reason, flip)


def _initial(rules: Rules, now_s: float) -> Outcome:
    target = rules.bounded(rules.minimum if rules.initial is None else rules.initial)
    name = "min_replicas" if rules.initial is None else "initial_replicas"
    reason = f"a new deployment begins with {name}: {target}"
    return Outcome(
        None,
        target,
        State(target, now_s, ((now_s, target),), ((now_s, target),)),
        Rule.INITIAL,
        (Step("initial", target, reason),),
        reason,
        "another initial_replicas",
    )


def _held(rules: Rules, state: State, rule: Rule, step: str, why: str, flip: str) -> Outcome:
    """The target stays, within its bounds, and delays begin anew."""
    target = rules.bounded(state.target)
    # A policy whose window fills is being watched; everything else is a gap.
    kept = state if rule is Rule.FILLING_WINDOW else State(state.target)
    sentence = f"{why}, so {_replicas(target)} {'stay' if target != 1 else 'stays'}"
    return _outcome(
        rules, state, target, kept, rule, [Step(step, target, sentence)], sentence, flip
    )


def _from_zero(signals: Signals, rules: Rules, state: State, wish: Wish, now_s: float) -> Outcome:
    steps = [Step("policy", max(1, wish.more), wish.sentence or f"{wish.unknown}; at least one")]
    target = max(1, rules.bounded(max(1, wish.more)))
    steps.append(_bounds_step(rules, max(1, wish.more), target))
    reason = f"from zero at once: {signals.held_load} requests wait; {steps[0].sentence}"
    kept = State(target, state.watched_since_s or now_s, ((now_s, target),), ((now_s, target),))
    rule = Rule.MAX_REPLICAS if target < wish.more else Rule.FROM_ZERO
    return _outcome(rules, state, target, kept, rule, steps, reason, "no waiting request")


def _by_policy(signals: Signals, rules: Rules, state: State, wish: Wish, now_s: float) -> Outcome:
    now = state.target
    steps = [Step("policy", _wished(wish, now), wish.sentence)]
    more, fewer = wish.more, wish.fewer
    idle = signals.held_load == 0 and more > now and not rules.custom
    if idle:
        # Yesterday's mean is no reason for a replica nobody waits for.
        more = now
        steps.append(Step("hold", now, "nothing waits or runs, so there are never more"))
    gained = _gain(rules, now, more, fewer)
    if gained != (more, fewer):
        steps.append(_gain_step(rules, now, (more, fewer), gained))
    more, fewer = rules.bounded(gained[0]), rules.bounded(gained[1])
    steps.append(_bounds_step(rules, _nearer(gained, now), _nearer((more, fewer), now)))
    kept_fewer = min(now, max(fewer, signals.starting)) if fewer < now else fewer
    since_s = now_s if state.watched_since_s is None else state.watched_since_s
    kept = State(
        now,
        since_s,
        wishes.noted_fewest(state.fewest, now_s, more, rules.upscale_delay_s),
        wishes.noted_most(
            state.most, now_s, kept_fewer, max(rules.downscale_delay_s, rules.to_zero_delay_s)
        ),
    )
    target, delay = _delayed(rules, kept, now_s)
    steps.append(Step("delay", target, delay))
    if kept_fewer > fewer and target > fewer:
        steps.append(Step("hold", target, _starting(signals)))
    rule = _rule(rules, wish, gained, (more, fewer), now, target, kept_fewer, idle)
    flip = _flip(signals, rules, kept, rule, now_s)
    return _outcome(
        rules, state, target, kept, rule, steps, _reason(rule, steps, now, target), flip
    )


def _gain(rules: Rules, now: int, more: int, fewer: int) -> tuple[int, int]:
    """Both counts with their distance to the target stretched or shortened [Ray Serve].

    Up: ceil(target + f·(count - target)). A step never rounds to none.
    """
    if more > now:
        more = now + max(1, math.ceil(rules.upscaling_factor * (more - now) - SLACK))
    if fewer < now:
        fewer = now - max(1, math.floor(rules.downscaling_factor * (now - fewer) + SLACK))
    return more, fewer


def _delayed(rules: Rules, state: State, now_s: float) -> tuple[int, str]:
    """The target after the delays, and what they did."""
    now = state.target
    if rules.bounded(now) != now:
        return rules.bounded(now), "bounds that changed hold at once"
    watched_s = now_s - (state.watched_since_s or 0.0) + 1e-6
    more = now
    if watched_s >= rules.upscale_delay_s:
        more = wishes.since(state.fewest, now_s - rules.upscale_delay_s)
    if more > now:
        return more, f"at least {more} were wanted for {rules.upscale_delay_s:g} s"
    fewer = now
    if watched_s >= rules.downscale_delay_s:
        fewer = min(now, wishes.since(state.most, now_s - rules.downscale_delay_s))
    idle = (
        watched_s >= rules.to_zero_delay_s
        and wishes.since(state.most, now_s - rules.to_zero_delay_s) == 0
    )
    if now == 1:
        fewer = 0 if idle else 1
    elif fewer == 0 and not idle:
        fewer = 1
    if fewer < now:
        delay_s = rules.downscale_delay_s if fewer else rules.to_zero_delay_s
        return fewer, f"no more than {fewer} were wanted for {delay_s:g} s"
    return now, _waiting(rules, state, now_s)


def _waiting(rules: Rules, state: State, now_s: float) -> str:
    now = state.target
    if state.fewest[-1][1] > now:
        left_s = _left_s(rules, state, now_s)
        return f"more are wanted, for {rules.upscale_delay_s - left_s:.1f} of " + (
            f"{rules.upscale_delay_s:g} s"
        )
    if state.most[-1][1] < now:
        left_s, delay_s = _left_s(rules, state, now_s), _down_delay_s(rules, now)
        return f"fewer are wanted, for {max(0.0, delay_s - left_s):.1f} of {delay_s:g} s"
    return "nothing to wait for"


def _left_s(rules: Rules, state: State, now_s: float) -> float:
    """Seconds until the target changes if what is wanted stays as it is."""
    now = state.target
    watched_s = state.watched_since_s or 0.0
    if state.fewest[-1][1] > now:
        entry_s = wishes.first_instant(state.fewest, lambda count: count > now)
        delay_s = rules.upscale_delay_s
    else:
        entry_s = wishes.first_instant(state.most, lambda count: count < now)
        delay_s = _down_delay_s(rules, now)
    begun_s = max(watched_s, now_s if entry_s is None else entry_s)
    return max(0.0, begun_s + delay_s - now_s)


def _down_delay_s(rules: Rules, now: int) -> float:
    return rules.to_zero_delay_s if now == 1 else rules.downscale_delay_s


def _rule(
    rules: Rules,
    wish: Wish,
    gained: tuple[int, int],
    bounded: tuple[int, int],
    now: int,
    target: int,
    kept_fewer: int,
    idle: bool,
) -> Rule:
    """What had the last word."""
    if target != now and rules.bounded(now) != now:
        return Rule.MIN_REPLICAS if target > now else Rule.MAX_REPLICAS
    if target > now:
        if bounded[0] < gained[0]:
            return Rule.MAX_REPLICAS
        if bounded[0] > gained[0]:
            return Rule.MIN_REPLICAS
        return Rule.GAIN if gained[0] != wish.more else Rule.POLICY
    if target < now:
        if bounded[1] > gained[1]:
            return Rule.MIN_REPLICAS
        return Rule.GAIN if gained[1] != wish.fewer else Rule.POLICY
    if bounded[0] > now:
        return Rule.UPSCALE_DELAY
    if bounded[1] < now:
        if kept_fewer >= now:
            return Rule.STARTING
        return Rule.DOWNSCALE_TO_ZERO_DELAY if now == 1 else Rule.DOWNSCALE_DELAY
    if idle:
        return Rule.NO_TRAFFIC
    if gained[0] > bounded[0]:
        return Rule.MAX_REPLICAS
    return Rule.MIN_REPLICAS if gained[1] < bounded[1] else Rule.POLICY


def _flip(signals: Signals, rules: Rules, state: State, rule: Rule, now_s: float) -> str:
    now = state.target
    left = f"another {_left_s(rules, state, now_s):.1f} s"
    if rule is Rule.UPSCALE_DELAY:
        return f"{left} of wanting more, or a shorter upscale_delay_s"
    if rule is Rule.DOWNSCALE_DELAY:
        return f"{left} of wanting fewer, or a shorter downscale_delay_s"
    if rule is Rule.DOWNSCALE_TO_ZERO_DELAY:
        return f"{left} of wanting none, or a shorter downscale_to_zero_delay_s"
    if rule is Rule.MAX_REPLICAS:
        return f"max_replicas above {rules.maximum}"
    if rule is Rule.MIN_REPLICAS:
        return f"min_replicas below {rules.minimum}"
    if rule is Rule.STARTING:
        return "starting replicas that get ready, or fail"
    if rule is Rule.NO_TRAFFIC:
        return "a request"
    assert rules.policy is not None, "a deployment without a policy has no threshold"
    return rules.policy.threshold(signals, now)


def _outcome(
    rules: Rules,
    state: State,
    target: int,
    kept: State,
    rule: Rule,
    steps: list[Step],
    reason: str,
    flip: str,
) -> Outcome:
    decided = target if not rules.advisory else state.target
    following = State(decided, kept.watched_since_s, kept.fewest, kept.most)
    return Outcome(
        state.target,
        target,
        following,
        rule,
        tuple(steps),
        reason,
        flip,
        applied=not rules.advisory,
    )


def _reason(rule: Rule, steps: list[Step], now: int, target: int) -> str:
    why = steps[0].sentence
    if target != now:
        return f"{now} to {target}: {why}; {_last(steps)}"
    if rule is Rule.POLICY:
        return f"{target} as it is: {why}"
    return f"{target} for now: {why}; {_last(steps, rule)}"


def _last(steps: list[Step], rule: Rule | None = None) -> str:
    """The sentence of the step that bound."""
    name = (
        {
            Rule.MAX_REPLICAS: "bounds",
            Rule.MIN_REPLICAS: "bounds",
            Rule.STARTING: "hold",
            Rule.NO_TRAFFIC: "hold",
        }.get(rule, "delay")
        if rule is not None
        else "delay"
    )
    return next((step.sentence for step in reversed(steps) if step.name == name), "")


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
        sentence = f"min_replicas is {rules.minimum}, so {count} becomes {bounded}"
    else:
        sentence = f"{bounded} is within {rules.minimum} to {rules.maximum}"
    return Step("bounds", bounded, sentence)


def _nearer(counts: tuple[int, int], now: int) -> int:
    """What both counts ask for: more than now, fewer than now, or what there is."""
    more, fewer = counts
    return more if more > now else min(now, fewer)


def _wished(wish: Wish, now: int) -> int:
    return _nearer((wish.more, wish.fewer), now)


def _starting(signals: Signals) -> str:
    what = "a replica that is" if signals.starting == 1 else f"{signals.starting} replicas that are"
    return f"{what} starting had no chance yet"


def _unknown(signals: Signals) -> str:
    missing = [
        name
        for name, value in (("queued", signals.queued), ("ongoing", signals.ongoing))
        if value is None
    ]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'}"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
