"""The rules that a deployment declares. Pure.

What the API fills in on the way to the store is explicit there; whatever is missing all the same
takes the default that the API documents.
"""

from google.protobuf.duration_pb2 import Duration

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import Policy as PolicyMessage
from forebay.v1.scaling_pb2 import ScalingPolicy
from services.autoscaler.scaling.policies import (
    Custom,
    MaxOf,
    OngoingRequests,
    Policy,
    QueueDepth,
    QueueSize,
    RequestLatency,
)
from services.autoscaler.scaling.rules import Rules
from services.autoscaler.scaling.windows import windows_of

# Defaults, which the API documents.
LOOK_BACK_S = 10
UPSCALE_DELAY_S = 3
DOWNSCALE_DELAY_S = 120
TO_ZERO_DELAY_S = 300
MAX_TASKS_PER_REPLICA = 30
QUEUE_SIZE = 1


def target_ongoing_requests(slots: int) -> float:
    """Half of a replica's slots, at least 1: room for what comes while another one starts."""
    return max(1.0, slots / 2)


def rules_of(deployment: Deployment) -> Rules:
    """The rules of a deployment."""
    pinned = deployment.pinned_replicas if deployment.HasField("pinned_replicas") else None
    if not deployment.HasField("scaling"):
        return Rules(fixed=deployment.replicas, pinned=pinned)
    return scaling_rules(deployment.scaling, deployment.max_ongoing_requests, pinned)


def scaling_rules(scaling: ScalingPolicy, slots: int, pinned: int | None) -> Rules:
    """The rules of a scaling policy.

    Args:
        scaling: as declared.
        slots: of one replica.
        pinned: replicas set by hand.
    """
    return Rules(
        policy=policy_of(scaling.policy, slots),
        pinned=pinned,
        minimum=scaling.min_replicas,
        maximum=scaling.max_replicas or max(1, scaling.min_replicas),
        initial=scaling.initial_replicas if scaling.HasField("initial_replicas") else None,
        upscaling_factor=scaling.upscaling_factor if scaling.HasField("upscaling_factor") else 1.0,
        downscaling_factor=scaling.downscaling_factor
        if scaling.HasField("downscaling_factor")
        else 1.0,
        upscale_delay_s=_seconds(scaling, "upscale_delay", UPSCALE_DELAY_S),
        downscale_delay_s=_seconds(scaling, "downscale_delay", DOWNSCALE_DELAY_S),
        to_zero_delay_s=_seconds(scaling, "downscale_to_zero_delay", TO_ZERO_DELAY_S),
        look_back_s=_look_back_s(scaling.policy),
        custom=custom_function(scaling.policy),
        advisory=scaling.advisory,
        slots=max(1, slots),
        windows=windows_of(scaling),
    )


def policy_of(message: PolicyMessage, slots: int) -> Policy:
    """The policy that a message names; the default one if it names none."""
    kind = message.WhichOneof("kind")
    if kind == "queue_depth":
        depth = message.queue_depth.max_tasks_per_replica
        return QueueDepth(depth or MAX_TASKS_PER_REPLICA)
    if kind == "request_latency":
        latency = message.request_latency
        assumed = latency.HasField("assumed_service_time")
        return RequestLatency(
            _to_s(latency.desired_latency),
            _to_s(latency.assumed_service_time) if assumed else None,
            max(1, slots),
        )
    if kind == "queue_size":
        given = message.queue_size.HasField("queue_size")
        size = message.queue_size.queue_size if given else QUEUE_SIZE
        return QueueSize(size, max(1, slots))
    if kind == "max_of":
        return MaxOf(tuple(policy_of(part, slots) for part in message.max_of.policies))
    if kind == "custom":
        return Custom(message.custom.function)
    ongoing = message.ongoing_requests
    return OngoingRequests(
        ongoing.target_ongoing_requests or target_ongoing_requests(slots), _look_back_s(message)
    )


def custom_function(message: PolicyMessage) -> str:
    """The function that a policy needs; empty if it needs none."""
    if message.WhichOneof("kind") == "max_of":
        return next((f for p in message.max_of.policies if (f := custom_function(p))), "")
    return message.custom.function


def _look_back_s(message: PolicyMessage) -> float:
    """The longest look-back period of a policy; 0 if it looks at no mean."""
    kind = message.WhichOneof("kind")
    if kind == "max_of":
        return max((_look_back_s(part) for part in message.max_of.policies), default=0.0)
    if kind not in (None, "ongoing_requests"):
        return 0.0
    return _seconds(message.ongoing_requests, "look_back_period", LOOK_BACK_S)


def _seconds(message: object, field: str, default_s: float) -> float:
    # Of any message with such a field.
    return _to_s(getattr(message, field)) if message.HasField(field) else default_s  # type: ignore[attr-defined]


def _to_s(duration: Duration) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9
