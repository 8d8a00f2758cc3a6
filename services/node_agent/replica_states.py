"""Pure: the life of a replica as a table."""

from forebay.v1.node_pb2 import ReplicaStatus

State = ReplicaStatus.State

STARTING = ReplicaStatus.STATE_STARTING
READY = ReplicaStatus.STATE_READY
DRAINING = ReplicaStatus.STATE_DRAINING
STOPPED = ReplicaStatus.STATE_STOPPED
FAILED = ReplicaStatus.STATE_FAILED

TRANSITIONS: dict[State, frozenset[State]] = {
    STARTING: frozenset({READY, FAILED, DRAINING, STOPPED}),
    # Back to STARTING when its Triton died and is started again.
    READY: frozenset({STARTING, FAILED, DRAINING}),
    DRAINING: frozenset({STOPPED}),
    # Tried again after a pause.
    FAILED: frozenset({STARTING, DRAINING, STOPPED}),
    STOPPED: frozenset(),
}
"""What each state may be followed by."""


class IllegalTransitionError(RuntimeError):
    """A step that the table does not have: a defect."""


def step(current: State, following: State) -> State:
    """The following state, if the table allows it.

    Raises:
        IllegalTransitionError: if it does not.
    """
    if following == current or following in TRANSITIONS[current]:
        return following
    name = ReplicaStatus.State.Name
    raise IllegalTransitionError(f"{name(current)} cannot become {name(following)}")
