"""Decisions as they are kept, and made again from what is kept. Pure."""

from dataclasses import replace

from forebay.v1.scaling_pb2 import ScaleDecision, ScaleSignals, ScaleState, ScaleStep, ScalingPolicy
from services.autoscaler.scaling.decide import decide
from services.autoscaler.scaling.declared import scaling_rules
from services.autoscaler.scaling.rules import Outcome, Rules, State
from services.autoscaler.scaling.signals import Signals

_SIGNALS = {
    "queued": "queued_count",
    "ongoing": "ongoing_count",
    "redelivered": "redelivered_count",
    "mean_load": "mean_load",
    "mean_held_load": "mean_held_load",
    "service_time_s": "service_time_s",
    "arrivals_per_s": "arrivals_per_second",
    "queue_wait_p95_s": "queue_wait_p95_s",
    "age_s": "age_s",
    "poison": "poison_count",
    "custom": "custom_replica_count",
}
"""Signals that may be unknown, and their fields in the API."""

_COUNTS = {
    "assigned": "assigned_replica_count",
    "ready": "ready_replica_count",
    "starting": "starting_replica_count",
    "unstartable": "unstartable_replica_count",
    "custom_error": "custom_error",
    "window_min": "window_min_replicas",
}


def decision_of(
    deployment: str,
    number: int,
    signals: Signals,
    scaling: ScalingPolicy | None,
    slots: int,
    rules: Rules,
    state: State | None,
    outcome: Outcome,
    now_s: float,
    wall_s: float,
    epoch: int,
) -> ScaleDecision:
    """A decision with everything that is needed to make it again.

    Args:
        deployment: its id.
        number: of the decision, rising within the deployment.
        signals: what was seen.
        scaling: the policy as declared; None for a fixed number of replicas.
        slots: of one replica.
        rules: what `scaling` came to.
        state: what was remembered before.
        outcome: what was decided.
        now_s: on the clock that `state` is on.
        wall_s: seconds since the epoch.
        epoch: term of the autoscaler.
    """
    decision = ScaleDecision(
        name=f"deployments/{deployment}/decisions/{number}",
        now_s=now_s,
        signals=signals_message(signals),
        max_ongoing_requests=slots,
        fixed_replicas=rules.fixed,
        steps=[
            ScaleStep(step=step.name, replica_count=step.count, sentence=step.sentence)
            for step in outcome.steps
        ],
        rule=ScaleDecision.Rule.ValueType(outcome.rule),
        target_before=outcome.before or 0,
        target_after=outcome.target,
        applied=outcome.applied,
        reason=outcome.reason,
        flip=outcome.flip,
        epoch=epoch,
    )
    decision.decide_time.FromNanoseconds(int(wall_s * 1e9))
    if scaling is not None:
        decision.policy.CopyFrom(scaling)
    if rules.pinned is not None:
        decision.pinned_replicas = rules.pinned
    if state is not None:
        decision.state.CopyFrom(state_message(state))
    return decision


def decided_again(decision: ScaleDecision) -> Outcome:
    """The outcome of a kept decision, from nothing but what it holds."""
    pinned = decision.pinned_replicas if decision.HasField("pinned_replicas") else None
    if decision.HasField("policy"):
        rules = scaling_rules(decision.policy, decision.max_ongoing_requests, pinned)
    else:
        rules = Rules(pinned=pinned)
    rules = replace(rules, fixed=decision.fixed_replicas)
    state = state_from(decision.state) if decision.HasField("state") else None
    return decide(signals_from(decision.signals), rules, state, decision.now_s)


def agrees(decision: ScaleDecision) -> bool:
    """Whether a kept decision comes out the same when it is made again."""
    again = decided_again(decision)
    steps = [(step.step, step.replica_count, step.sentence) for step in decision.steps]
    return (
        again.target == decision.target_after
        and int(again.rule) == decision.rule
        and again.reason == decision.reason
        and again.flip == decision.flip
        and again.applied == decision.applied
        and [(step.name, float(step.count), step.sentence) for step in again.steps] == steps
    )


def signals_message(signals: Signals) -> ScaleSignals:
    """Signals as the API has them."""
    message = ScaleSignals()
    for name, field in _SIGNALS.items():
        value = getattr(signals, name)
        if value is not None:
            setattr(message, field, value)
    for name, field in _COUNTS.items():
        setattr(message, field, getattr(signals, name))
    return message


def signals_from(message: ScaleSignals) -> Signals:
    """Signals from the API's message."""
    known = {
        name: getattr(message, field) for name, field in _SIGNALS.items() if message.HasField(field)
    }
    return Signals(**known, **{name: getattr(message, field) for name, field in _COUNTS.items()})


def state_message(state: State) -> ScaleState:
    """A state as the API has it."""
    return ScaleState(
        target_replica_count=state.target,
        fewest_wished=[ScaleState.Wish(at_s=at, replica_count=n) for at, n in state.fewest],
        most_wished=[ScaleState.Wish(at_s=at, replica_count=n) for at, n in state.most],
    )


def state_from(message: ScaleState) -> State:
    """A state from the API's message."""
    return State(
        message.target_replica_count,
        tuple((wish.at_s, wish.replica_count) for wish in message.fewest_wished),
        tuple((wish.at_s, wish.replica_count) for wish in message.most_wished),
    )
