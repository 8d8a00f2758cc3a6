"""A scaler walked through time; every decision it makes is kept and made again."""

from collections.abc import Callable
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from forebay.v1.scaling_pb2 import (
    CustomPolicy,
    MaxOfPolicy,
    OngoingRequestsPolicy,
    Policy,
    QueueDepthPolicy,
    QueueSizePolicy,
    RequestLatencyPolicy,
    ScaleDecision,
    ScalingPolicy,
)
from services.autoscaler.scaling import record
from services.autoscaler.scaling.declared import scaling_rules
from services.autoscaler.scaling.rules import Rules, State
from services.autoscaler.scaling.scaler import Look, Scaler
from services.autoscaler.scaling.signals import Signals

DURATIONS = ("upscale_delay", "downscale_delay", "downscale_to_zero_delay")


def seen(queued: int | None = 0, ongoing: int | None = 0, **others: object) -> Signals:
    """Signals of a deployment whose requests are known."""
    return replace(Signals(queued=queued, ongoing=ongoing, redelivered=0), **others)


def duration(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def scaling(policy: Policy, **fields: float) -> ScalingPolicy:
    """A scaling policy; delays in seconds."""
    durations = {name: duration(fields.pop(name)) for name in DURATIONS if name in fields}
    fields.setdefault("max_replicas", 100)
    return ScalingPolicy(policy=policy, **fields, **durations)


def ongoing(target: float, look_back_s: float = 10) -> Policy:
    return Policy(
        ongoing_requests=OngoingRequestsPolicy(
            target_ongoing_requests=target, look_back_period=duration(look_back_s)
        )
    )


def depth(tasks: int) -> Policy:
    return Policy(queue_depth=QueueDepthPolicy(max_tasks_per_replica=tasks))


def latency(desired_s: float, assumed_s: float | None = None) -> Policy:
    message = RequestLatencyPolicy(desired_latency=duration(desired_s))
    if assumed_s is not None:
        message.assumed_service_time.CopyFrom(duration(assumed_s))
    return Policy(request_latency=message)


def size(waiting: int) -> Policy:
    return Policy(queue_size=QueueSizePolicy(queue_size=waiting))


def custom(function: str = "mine:replicas") -> Policy:
    return Policy(custom=CustomPolicy(function=function))


def max_of(*policies: Policy) -> Policy:
    return Policy(max_of=MaxOfPolicy(policies=policies))


class Walk:
    """A scaler, its clock, and every decision it made.

    Attributes:
        now_s: when the last look was.
        changes: how often the target changed.
        noted: the decisions that belong into the journal.
    """

    def __init__(
        self,
        declared: ScalingPolicy | None = None,
        slots: int = 1,
        target: int | None = None,
        known_before: bool = False,
        now_s: float = 1000.0,
        **fixed: int,
    ) -> None:
        self._slots = slots
        self._declared = declared
        state = None if target is None else State(target)
        self.scaler = Scaler(self._rules(declared, **fixed), state, known_before)
        self.now_s = now_s
        self.changes = 0
        self.noted: list[ScaleDecision] = []

    def declare(self, declared: ScalingPolicy | None, **fixed: int) -> None:
        self._declared = declared
        self.scaler.declare(self._rules(declared, **fixed))

    def look(self, signals: Signals) -> Look:
        before = self.scaler.target
        look = self.scaler.look(self.now_s, signals)
        self.changes += before is not None and self.scaler.target != before
        decision = self._kept(look)
        assert record.agrees(decision), decision
        if look.noteworthy:
            self.noted.append(decision)
        return look

    def on(
        self, seconds: float, signals: Signals | Callable[[], Signals], tick_s: float = 1
    ) -> int:
        """Looks every tick for so long, the last time at its very end; returns the target."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + tick_s)
            self.look(signals() if callable(signals) else signals)
        assert self.scaler.target is not None
        return self.scaler.target

    def _rules(
        self, declared: ScalingPolicy | None, pinned: int | None = None, replicas: int = 0
    ) -> Rules:
        if declared is None:
            return Rules(fixed=replicas, pinned=pinned)
        return scaling_rules(declared, self._slots, pinned)

    def _kept(self, look: Look) -> ScaleDecision:
        decision = record.decision_of(
            "add",
            1,
            look.signals,
            self._declared,
            self._slots,
            self.scaler.rules,
            look.before,
            look.outcome,
            self.now_s,
            1.75e9,
            1,
        )
        parsed: ScaleDecision = ScaleDecision.FromString(decision.SerializeToString())
        return parsed
