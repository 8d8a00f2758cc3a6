"""From what metrics says of a deployment to the signals its scaling goes by. Pure."""

from google.protobuf.duration_pb2 import Duration

from forebay.v1.metrics_pb2 import DeploymentLoad, Snapshot
from services.autoscaler.scaling.signals import Signals
from services.autoscaler.startups import Starts
from services.wire.names import DEPLOYMENT_PREFIX

WAKE_HOLD_S = 3.0
"""How long a wake counts as one waiting request or task at least: until metrics has seen it."""

_NO_LOAD = DeploymentLoad()


def loads_of(snapshot: Snapshot) -> dict[str, DeploymentLoad]:
    """The loads of a snapshot by id of the deployment."""
    return {load.deployment.removeprefix(DEPLOYMENT_PREFIX): load for load in snapshot.deployments}


def is_idle(load: DeploymentLoad) -> bool:
    """Whether it is known that nothing waits or runs."""
    return (
        not load.queued_count
        and not load.ongoing_count
        and load.HasField("queued_count")
        and load.HasField("ongoing_count")
    )


def signals_of(
    load: DeploymentLoad | None,
    starts: Starts,
    assigned: int,
    woken: tuple[int, int] | None = None,
    custom: tuple[float | None, str] = (None, ""),
    window_min: int = 0,
) -> Signals:
    """The signals of one deployment.

    Args:
        load: what metrics says of it; None if it says nothing.
        starts: where its replicas are in their start.
        assigned: how many replicas are assigned.
        woken: queued and ongoing requests and tasks as they were a moment ago, when somebody said
            that one waits; None if nobody said so.
        custom: answer and error of the custom policy.
        window_min: the most replicas that an open window of its policy asks for.
    """
    poison = load.poison_count if load is not None else None
    load = load or _NO_LOAD
    queued = load.queued_count if load.HasField("queued_count") else None
    ongoing = load.ongoing_count if load.HasField("ongoing_count") else None
    if woken is not None and not queued and not ongoing:
        # Newer than what metrics polled.
        queued, ongoing = woken
    return Signals(
        queued=queued,
        ongoing=ongoing,
        redelivered=load.redelivered_count if load.HasField("redelivered_count") else None,
        service_time_s=_seconds(load.service_time.mean) if load.service_time.count else None,
        arrivals_per_s=load.arrivals_per_second if load.HasField("arrivals_per_second") else None,
        queue_wait_p95_s=_seconds(load.queue_wait.p95) if load.queue_wait.count else None,
        age_s=_seconds(load.age) if load.HasField("age") else None,
        poison=poison,
        assigned=assigned,
        ready=starts.ready,
        starting=starts.starting,
        unstartable=starts.unstartable,
        custom=custom[0],
        custom_error=custom[1],
        window_min=window_min,
    )


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9
