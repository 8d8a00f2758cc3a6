"""What is wrong with a deployment or a node, in the order in which to look at it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.node_pb2 import Gpu, Node

LONG_WAIT_S = 10.0
FAILING_RATIO = 0.05


class Level(IntEnum):
    """How bad it is."""

    FINE = 0
    NOTICE = 1
    WARNING = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        level: how bad.
        text: a few words for a person.
    """

    level: Level
    text: str


def of_deployment(
    values: Mapping[str, float | None],
    status: DeploymentStatus | None,
    failing_ratio: float | None,
) -> list[Trouble]:
    """What is wrong with a deployment, worst first.

    Args:
        values: its last instant, as `points.of_deployment` gives it.
        status: as the autoscaler wrote it last; None if it is not known.
        failing_ratio: share of recent attempts that ended as the model's or the mesh's fault, 0
            to 1; None if none ended.
    """
    found = [
        *_replicas(values, status),
        *_queue(values),
    ]
    if failing_ratio is not None and failing_ratio >= FAILING_RATIO:
        share = f"{failing_ratio:.0%} of attempts fail"
        found.append(Trouble(Level.BAD if failing_ratio >= 0.5 else Level.WARNING, share))
    if status is not None:
        found += [Trouble(Level.WARNING, warning) for warning in status.warnings]
    return sorted(found, key=lambda trouble: -trouble.level)


def of_node(node: Node) -> list[Trouble]:
    """What is wrong with a node, worst first."""
    if node.state == Node.STATE_OFFLINE:
        return [Trouble(Level.BAD, "does not report")]
    found = [
        Trouble(Level.BAD, f"GPU {gpu.uuid}: {gpu.health_message or Gpu.Health.Name(gpu.health)}")
        for gpu in node.gpus
        if gpu.health in (Gpu.HEALTH_FAULTY, Gpu.HEALTH_LOST)
    ]
    if node.runtime_message:
        found.append(Trouble(Level.BAD, node.runtime_message))
    if node.state == Node.STATE_DRAINING:
        found.append(Trouble(Level.NOTICE, "draining"))
    return found


def _replicas(values: Mapping[str, float | None], status: DeploymentStatus | None) -> list[Trouble]:
    found: list[Trouble] = []
    failed = values.get("failed") or 0
    if failed:
        found.append(Trouble(Level.BAD, f"replicas failed: {failed:.0f}"))
    if status is not None and status.unplaced_replica_count:
        unplaced = status.unplaced_replica_count
        found.append(Trouble(Level.BAD, f"replicas without a place: {unplaced}"))
    if not values.get("ready"):
        if values.get("starting"):
            found.append(Trouble(Level.NOTICE, "starting from zero"))
        elif values.get("queued"):
            found.append(Trouble(Level.BAD, "something waits and no replica comes"))
    return found


def _queue(values: Mapping[str, float | None]) -> list[Trouble]:
    found: list[Trouble] = []
    if values.get("queued") is None:
        found.append(Trouble(Level.WARNING, "queue not known"))
    waited_s = values.get("oldest_queued_age_s") or 0
    if waited_s >= LONG_WAIT_S:
        found.append(Trouble(Level.WARNING, f"oldest waits {waited_s:.0f} s"))
    if again := values.get("redelivered"):
        found.append(Trouble(Level.NOTICE, f"delivered again: {again:.0f}"))
    if dead := values.get("dead_tasks"):
        found.append(Trouble(Level.NOTICE, f"dead letters: {dead:.0f}"))
    if poison := values.get("poison"):
        found.append(Trouble(Level.NOTICE, f"poison requests: {poison:.0f}"))
    return found
