"""What may become of one request, checked as it happens. Pure: time is an argument."""

from services.autoscaler.simulation.deployed import ENDED, Deployed, Fate, SimReplica
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.pulse import TOLERANCE_S
from services.autoscaler.view import State

_ANSWERING = (State.READY, State.DRAINING)


def check_begun(d: Deployed, i: int, now_s: float) -> None:
    """Checks I4: no replica begins a request after its deadline.

    Raises:
        InvariantError: if one does.
    """
    deadline_s = d.deadline_s(i)
    if now_s > deadline_s + TOLERANCE_S:
        raise InvariantError(
            f"I4: request {i} of {d.name} began at {now_s:g} s, its deadline was at "
            f"{deadline_s:g} s"
        )


def check_answer(d: Deployed, replica: SimReplica, i: int, now_s: float) -> None:
    """Checks I2: an answer comes from a replica that was READY and works on the request.

    Raises:
        InvariantError: if it does not.
    """
    if i not in replica.ongoing or replica.state not in _ANSWERING:
        raise InvariantError(
            f"I2: request {i} of {d.name} was answered at {now_s:g} s by {replica.replica_id}, "
            f"which is {replica.state.name} and works on {len(replica.ongoing)} others"
        )


def check_end(d: Deployed, i: int, fate: Fate, now_s: float) -> None:
    """Checks I1 to I3: a request that ends was delivered, and has not ended before.

    Raises:
        InvariantError: if it was not, or has.
    """
    before = Fate(d.fates[i])
    if before is not Fate.DELIVERED:
        number = "I1, I3" if before in ENDED else "I2"
        raise InvariantError(
            f"{number}: request {i} of {d.name} ended as {fate.name} at {now_s:g} s and was "
            f"{before.name} before"
        )


def check_idle(replica: SimReplica, now_s: float) -> None:
    """Checks I1: what is stopped works on nothing.

    Raises:
        InvariantError: if it does.
    """
    if replica.ongoing:
        raise InvariantError(
            f"I1: {replica.replica_id} was stopped at {now_s:g} s while it worked on "
            f"{len(replica.ongoing)} requests"
        )
