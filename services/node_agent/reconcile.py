"""Pure: what to do so that what runs becomes what is assigned."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from forebay.v1.autoscaler_pb2 import Assignment


@dataclass(frozen=True, slots=True)
class AssignedSet:
    """The latest word of the autoscaler.

    Attributes:
        assignments: everything this node must run.
        revision: of this set.
        epoch: term of the autoscaler that said it.
    """

    assignments: tuple[Assignment, ...]
    revision: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Actions:
    """What follows from an assigned set.

    Attributes:
        start: assignments to start a replica for.
        keep: assignments of replicas that run and stay.
        drain: ids of replicas that finish and go.
    """

    start: tuple[Assignment, ...]
    keep: tuple[Assignment, ...]
    drain: tuple[str, ...]


def accepts(current: AssignedSet | None, offered: AssignedSet) -> bool:
    """Whether an offered set is news: not from an older epoch, nor an older one of this epoch."""
    if current is None:
        return True
    return (offered.epoch, offered.revision) >= (current.epoch, current.revision)


def reconcile(assigned: AssignedSet, running: Mapping[str, bool]) -> Actions:
    """Compares what is assigned with what runs.

    Args:
        assigned: the latest accepted set.
        running: by replica id, whether it is leaving already (DRAINING or STOPPED).
    """
    wanted = {assignment.replica_id: assignment for assignment in assigned.assignments}
    return Actions(
        start=tuple(a for key, a in wanted.items() if key not in running),
        keep=tuple(a for key, a in wanted.items() if key in running and not running[key]),
        drain=tuple(sorted(_leaving(running, wanted))),
    )


def _leaving(running: Mapping[str, bool], wanted: Iterable[str]) -> set[str]:
    return {key for key, leaving in running.items() if not leaving} - set(wanted)
