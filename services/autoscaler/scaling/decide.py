"""How many replicas a deployment should have. Pure: time is an argument.

The steps: policy, gain, bounds, delay, hold; `explain` has their sentences. Nothing here is rounded
to no step at all, counts ticks instead of seconds, or takes what is not known for zero.
"""

import math
from dataclasses import replace
from functools import partial

from services.autoscaler.scaling import explain, wishes
from services.autoscaler.scaling.explain import Course
from services.autoscaler.scaling.policies import SLACK, Custom, Wish
from services.autoscaler.scaling.rules import Explanation, Outcome, Rule, Rules, State
from services.autoscaler.scaling.signals import Signals


def decide(signals: Signals, rules: Rules, state: State | None, now_s: float) -> Outcome:
    """One decision.

    Args:
        signals: what is seen.
        rules: what is declared.
        state: what was remembered; None if the deployment is new.
        now_s: seconds on a clock that never goes back, the one `state` is on.
    """
    rules = rules.within(signals.window_min)
    if rules.policy is None or rules.pinned is not None:
        return _without_policy(rules, state)
    if state is None:
        return _initial(rules, now_s)
    if signals.held_load is None:
        return _held(signals, rules, state, Rule.UNKNOWN_SIGNALS, "")
    at_once = state.target == 0 and signals.held_load > 0
    wish = rules.policy.wish(signals, at_once)
    if at_once and (wish.unknown or wish.more or not isinstance(rules.policy, Custom)):
        return _from_zero(signals, rules, state, wish, now_s)
    if wish.unknown:
        rule = Rule.FILLING_WINDOW if wish.filling else Rule.CUSTOM_FAILED
        return _held(signals, rules, state, rule, wish.unknown)
    return _by_policy(signals, rules, state, wish, now_s)


def _without_policy(rules: Rules, state: State | None) -> Outcome:
    pinned = rules.pinned is not None
    target = rules.pinned if rules.pinned is not None else rules.fixed
    return Outcome(
        state.target if state else None,
        target,
        State(target),
        Rule.MANUAL if pinned else Rule.FIXED,
        partial(explain.without_policy, rules, target),
    )


def _initial(rules: Rules, now_s: float) -> Outcome:
    target = rules.bounded(rules.minimum if rules.initial is None else rules.initial)
    begun = ((now_s, target),)
    return Outcome(
        None,
        target,
        State(target, begun, begun),
        Rule.INITIAL,
        partial(explain.initial, rules, target),
    )


def _held(signals: Signals, rules: Rules, state: State, rule: Rule, why: str) -> Outcome:
    """The target stays, within its bounds, and delays begin anew."""
    target = rules.bounded(state.target)
    # A policy whose window fills is being watched; everything else is a gap.
    kept = state if rule is Rule.FILLING_WINDOW else State(state.target)
    told = partial(explain.held, signals, state.target, rules, rule, why)
    if target != state.target:
        rule = _least(rules) if target > state.target else Rule.MAX_REPLICAS
    return _outcome(rules, state, target, kept, rule, told)


def _from_zero(signals: Signals, rules: Rules, state: State, wish: Wish, now_s: float) -> Outcome:
    wanted = max(1, wish.more)
    target = max(1, rules.bounded(wanted))
    begun = ((now_s, target),)
    rule = Rule.MAX_REPLICAS if target < wanted else Rule.FROM_ZERO
    told = partial(explain.from_zero, signals, rules, wish, target)
    return _outcome(rules, state, target, State(target, begun, begun), rule, told)


def _by_policy(signals: Signals, rules: Rules, state: State, wish: Wish, now_s: float) -> Outcome:
    now = state.target
    if signals.starting and not signals.ready and not signals.unstartable:
        # Everybody waits until the first is ready: a delay would only make them wait longer.
        rules = replace(rules, upscale_delay_s=0.0)
    # Yesterday's mean is no reason for a replica nobody waits for.
    idle = signals.held_load == 0 and wish.more > now and not rules.custom
    gained = _gain(rules, now, now if idle else wish.more, wish.fewer)
    more, fewer = rules.bounded(gained[0]), rules.bounded(gained[1])
    kept_fewer = fewer
    if fewer < now:
        held = held_back(signals.starting, signals.ready, signals.ongoing or 0, rules)
        kept_fewer = min(now, max(fewer, held))
    # A factor above 1 asks for more than must stay; what was asked for lasts its delay too.
    most = max(kept_fewer, more) if more > now else kept_fewer
    longest_s = max(rules.downscale_delay_s, rules.to_zero_delay_s)
    kept = State(
        now,
        wishes.noted_fewest(state.fewest, now_s, more, rules.upscale_delay_s),
        wishes.noted_most(state.most, now_s, most, longest_s),
    )
    target = _delayed(rules, kept, now_s)
    course = Course(
        signals, rules, wish, idle, gained, (more, fewer), kept_fewer, kept, target, now_s
    )
    rule = _rule(course)
    return _outcome(rules, state, target, kept, rule, partial(explain.by_policy, course, rule))


def _gain(rules: Rules, now: int, more: int, fewer: int) -> tuple[int, int]:
    """Both counts with their distance to the target stretched or shortened [Ray Serve].

    Up: ceil(target + f·(count - target)). A step never rounds to none.
    """
    if more > now:
        more = now + max(1, math.ceil(rules.upscaling_factor * (more - now) - SLACK))
    if fewer < now:
        fewer = now - max(1, math.floor(rules.downscaling_factor * (now - fewer) + SLACK))
    return more, fewer


def held_back(starting: int, ready: int, ongoing: int, rules: Rules) -> int:
    """The fewest replicas that leave what is busy and what is starting alone.

    Ongoing requests keep as many replicas as they fill. A custom policy may ask for fewer: whoever
    wrote it knows why, and a busy replica finishes what it has. Where one is ready it stays as long
    as others start: they may fail.

    Args:
        starting: replicas that have not had their chance.
        ready: replicas that answer.
        ongoing: requests delivered and not settled.
        rules: of the deployment.
    """
    busy = 0 if rules.custom else math.ceil(ongoing / rules.slots)
    return starting + max(busy, min(1, ready)) if starting else busy


def _delayed(rules: Rules, state: State, now_s: float) -> int:
    """The target after the delays; bounds that changed hold at once."""
    now = state.target
    if rules.bounded(now) != now:
        return rules.bounded(now)
    more = wishes.since(state.fewest, now_s - rules.upscale_delay_s)
    if more is not None and more > now:
        return more
    fewer = wishes.since(state.most, now_s - rules.downscale_delay_s)
    if fewer is None or fewer > now:
        fewer = now
    idle = wishes.since(state.most, now_s - rules.to_zero_delay_s) == 0
    if now == 1:
        return 0 if idle else 1
    return max(fewer, 0 if idle else 1) if now else 0


def _rule(course: Course) -> Rule:
    """What had the last word."""
    rules, now, target = course.rules, course.kept.target, course.target
    (gained_more, gained_fewer), (more, fewer) = course.gained, course.bounded
    if rules.bounded(now) != now:
        return _least(rules) if target > now else Rule.MAX_REPLICAS
    if more > max(target, now):
        return Rule.UPSCALE_DELAY
    if target > now:
        if more < gained_more:
            return Rule.MAX_REPLICAS
        return Rule.GAIN if gained_more != course.wish.more else Rule.POLICY
    if course.kept_fewer < target:
        return Rule.DOWNSCALE_TO_ZERO_DELAY if target == 1 else Rule.DOWNSCALE_DELAY
    if fewer < course.kept_fewer:
        return Rule.STARTING if course.signals.starting else Rule.BUSY
    if target < now:
        if fewer > gained_fewer:
            return _least(rules)
        return Rule.GAIN if gained_fewer != course.wish.fewer else Rule.POLICY
    if course.idle:
        return Rule.NO_TRAFFIC
    if gained_more > more:
        return Rule.MAX_REPLICAS
    return _least(rules) if gained_fewer < fewer else Rule.POLICY


def _least(rules: Rules) -> Rule:
    """What sets the lower bound."""
    return Rule.WINDOW if rules.windowed else Rule.MIN_REPLICAS


def _outcome(
    rules: Rules,
    state: State,
    target: int,
    kept: State,
    rule: Rule,
    told: partial[Explanation],
) -> Outcome:
    following = kept
    decided = state.target if rules.advisory else target
    if kept.target != decided:
        following = State(decided, kept.fewest, kept.most)
    return Outcome(state.target, target, following, rule, told, applied=not rules.advisory)
