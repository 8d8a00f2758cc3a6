"""When a decision can change although nothing does. Pure: time is an argument."""

from services.autoscaler.scaling.rules import Outcome, Rule, Rules, State
from services.autoscaler.simulation.agenda import NEVER

_TOLERANCE_S = 1e-6


def next_change_s(state: State, rules: Rules, now_s: float) -> float:
    """The next instant at which a delay ends; NEVER if none does.

    Until then, and as long as what is seen stays the same and so do the means over the window, a
    look comes out as the last one did.

    Args:
        state: what is remembered after the last look.
        rules: what is declared.
        now_s: when that look was.
    """
    ends = [at_s + rules.upscale_delay_s for at_s, _ in state.fewest]
    ends += [at_s + rules.downscale_delay_s for at_s, _ in state.most]
    ends += [at_s + rules.to_zero_delay_s for at_s, _ in state.most]
    return min((end_s for end_s in ends if end_s > now_s + _TOLERANCE_S), default=NEVER)


def next_look_s(
    outcome: Outcome, rules: Rules, seen_since_s: float, now_s: float, tick_s: float
) -> float:
    """By when to look again although nothing changes.

    Args:
        outcome: of the last look.
        rules: what is declared.
        seen_since_s: since when the same has been seen.
        now_s: when the last look was.
        tick_s: time between two looks.
    """
    if outcome.rule in (Rule.FIXED, Rule.MANUAL):
        return NEVER if outcome.target == outcome.before else now_s + tick_s
    moving = (
        outcome.target != outcome.before
        or outcome.rule in (Rule.FILLING_WINDOW, Rule.UNKNOWN_SIGNALS)
        or bool(rules.custom)
        or rules.advisory
        or now_s < seen_since_s + rules.look_back_s + tick_s
    )
    return now_s + tick_s if moving else next_change_s(outcome.state, rules, now_s)
