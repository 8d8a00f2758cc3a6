"""Scaling as people read it: policies, targets, decisions. Pure."""

from google.protobuf.duration_pb2 import Duration

from forebay.cli.output import enum_word
from forebay.v1.deployment_pb2 import Deployment, ReplicaResources
from forebay.v1.scaling_pb2 import Policy, ScaleDecision, ScalingPolicy


def target_of(deployment: Deployment) -> int:
    """How many replicas a deployment should have now."""
    if deployment.HasField("pinned_replicas"):
        return int(deployment.pinned_replicas)
    if not deployment.HasField("scaling"):
        return int(deployment.replicas)
    return int(deployment.status.target_replica_count)


def short_scaling(deployment: Deployment) -> str:
    """What decides the number of replicas, in a few words for a table."""
    if deployment.HasField("scaling"):
        scaling = deployment.scaling
        kind = scaling.policy.WhichOneof("kind") or "no policy"
        said = f"{scaling.min_replicas} to {scaling.max_replicas}, {kind}"
        if scaling.advisory:
            said += ", advisory"
    else:
        said = "fixed"
    if deployment.HasField("pinned_replicas"):
        return f"pinned ({said})"
    return said


def long_scaling(scaling: ScalingPolicy) -> str:
    """A scaling policy in one line."""
    bounds = f"{scaling.min_replicas} to {scaling.max_replicas} replicas"
    said = (
        f"{bounds}; {policy_words(scaling.policy)}; up after {_s(scaling.upscale_delay)}, down "
        f"after {_s(scaling.downscale_delay)}, to zero after {_s(scaling.downscale_to_zero_delay)}"
    )
    for title, factor in (
        ("up", scaling.upscaling_factor),
        ("down", scaling.downscaling_factor),
    ):
        if factor not in (0, 1):
            said += f", {title} by {factor:g} of the distance"
    return f"{said}; advisory: not acted on" if scaling.advisory else said


def policy_words(policy: Policy) -> str:
    """A policy with its numbers."""
    kind = policy.WhichOneof("kind")
    match kind:
        case "ongoing_requests":
            mean = policy.ongoing_requests
            said = (
                f"{mean.target_ongoing_requests:g} per replica, mean over "
                f"{_s(mean.look_back_period)}"
            )
        case "queue_depth":
            said = f"{policy.queue_depth.max_tasks_per_replica} per replica"
        case "request_latency":
            said = f"the last one starts within {_s(policy.request_latency.desired_latency)}"
        case "queue_size":
            said = f"at most {policy.queue_size.queue_size} waiting"
        case "custom":
            said = policy.custom.function
        case "max_of":
            said = "; ".join(policy_words(inner) for inner in policy.max_of.policies)
        case _:
            return "no policy"
    return f"{kind} ({said})"


def short_name(decision: ScaleDecision) -> str:
    """`deployments/x/decisions/y` as `x/y`, which `forebay explain` takes."""
    parts = decision.name.split("/")
    return f"{parts[1]}/{parts[3]}" if len(parts) == 4 else str(decision.name)


def change(decision: ScaleDecision) -> str:
    """Target before and after; in brackets if it is not acted on."""
    if decision.target_before == decision.target_after:
        said = str(decision.target_after)
    else:
        said = f"{decision.target_before}→{decision.target_after}"
    return said if decision.applied else f"({said})"


def rule_word(decision: ScaleDecision) -> str:
    """The rule that had the last word."""
    if decision.rule not in ScaleDecision.Rule.values():
        return f"rule {decision.rule}"
    return enum_word("Rule", ScaleDecision.Rule.Name(decision.rule))


def when(decision: ScaleDecision) -> str:
    """When a decision was made, in UTC."""
    return str(decision.decide_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ"))


def resource_words(resources: ReplicaResources) -> str:
    """What a replica needs, such as `0.5 GPU (L4), 2 CPUs`."""
    said = []
    if resources.gpus:
        product = f" ({resources.accelerator_type})" if resources.accelerator_type else ""
        said.append(f"{resources.gpus:g} GPU{product}")
    else:
        said.append("a CPU slot")
    if resources.gpu_memory_bytes:
        said.append(f"{gibibytes(resources.gpu_memory_bytes)} of GPU memory")
    if resources.cpus:
        said.append(f"{resources.cpus:g} CPUs")
    if resources.memory_bytes:
        said.append(f"{gibibytes(resources.memory_bytes)} of memory")
    said += [f"{amount:g} {name}" for name, amount in sorted(resources.custom.items())]
    return ", ".join(said)


def gibibytes(size_bytes: int) -> str:
    """Bytes as people read them, in the unit of the autoscaler's sentences."""
    return f"{size_bytes / 2**30:.3g} GiB"


def _s(duration: Duration) -> str:
    return f"{duration.ToMicroseconds() / 1e6:g} s"
