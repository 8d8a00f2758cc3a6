"""What must never happen, checked in every simulated run. Pure: time is an argument."""

from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.scaling.record import agrees
from services.autoscaler.scaling.scaler import Look
from services.autoscaler.simulation.deployed import Deployed, Fate
from services.autoscaler.simulation.mesh import Mesh
from services.autoscaler.simulation.ownership import InvariantError, check_owners
from services.autoscaler.simulation.pulse import TOLERANCE_S
from services.autoscaler.simulation.watched import Watched
from services.autoscaler.startups import Startups
from services.autoscaler.view import State


def check_target(now_s: float, watched: Watched, look: Look, before: int | None) -> None:
    """Checks a target that changed: within its bounds, and kept while nothing is known (I9).

    Raises:
        InvariantError: if it is not.
    """
    rules, outcome = watched.rules.within(look.signals.window_min), look.outcome
    target = outcome.state.target
    said = f"{watched.deployed.name} at {now_s:g} s: {before} to {target} ({outcome.reason})"
    if rules.pinned is not None or rules.policy is None:
        return
    # From zero something must serve, and advice is not acted on.
    most = max(1, rules.maximum)
    if not rules.advisory and not rules.minimum <= target <= most:
        raise InvariantError(f"outside of {rules.minimum} to {rules.maximum}: {said}")
    unknown = look.signals.held_load is None
    if unknown and before is not None and target != rules.bounded(before):
        raise InvariantError(f"I9: signals are not known: {said}")
    rose = before is not None and before < target > rules.minimum
    if rose and not look.signals.held_load and not rules.custom:
        raise InvariantError(f"up without traffic: {said}")


def check_removal(
    now_s: float,
    mesh: Mesh,
    replica_id: str,
    watched: Watched,
    startups: Startups,
    evacuated: bool,
) -> None:
    """Checks that a replica which is to be removed has had its chance to start.

    It need not, if its deployment, its node or its GPU is to have none of it any more.

    Raises:
        InvariantError: if it had not.
    """
    replica = mesh.replicas.get(replica_id)
    if replica is None or replica.state is not State.STARTING or replica.start_count > 1:
        return
    changed = watched.deployed.changed_s >= replica.assigned_s
    old = replica.generation != watched.spec.generation
    if changed or old or evacuated or watched.rules.pinned is not None:
        return
    if now_s - replica.assigned_s <= startups.allowance_s(watched.deployed.name):
        raise InvariantError(
            f"{replica_id} was removed at {now_s:g} s, {now_s - replica.assigned_s:g} s into its "
            "start"
        )


def check_decision(decision: ScaleDecision) -> None:
    """Checks that a decision comes out the same when it is made again from what is kept of it.

    Raises:
        InvariantError: if it does not.
    """
    if not agrees(ScaleDecision.FromString(decision.SerializeToString())):
        raise InvariantError(f"replay: {decision.name} comes out otherwise: {decision.reason}")


def check_bound(d: Deployed, now_s: float) -> None:
    """Checks I5: no more requests wait or run than may; after a bound fell, no more come in.

    Raises:
        InvariantError: if there are more.
    """
    if d.held > d.ceiling:
        raise InvariantError(
            f"I5: {d.held} requests to {d.name} wait or run at {now_s:g} s, of {d.ceiling} that may"
        )
    d.ceiling = max(d.max_held, d.held)


def check_mesh(mesh: Mesh) -> None:
    """Checks what must hold at any instant.

    Raises:
        InvariantError: if it does not.
    """
    for deployed in mesh.deployed.values():
        _check_requests(mesh, deployed)
        _check_deadlines(deployed, mesh.agenda.now_s)
        check_bound(deployed, mesh.agenda.now_s)
    if not mesh.unlimited:
        for node in mesh.nodes.values():
            check_owners(node, mesh.agenda.now_s, mesh.nodes.values())


def _check_requests(mesh: Mesh, d: Deployed) -> None:
    """I1, I5: every request is in one place, or ended in one way, or was refused and counted."""
    if d.sent != len(d.fates) + d.refused:
        raise InvariantError(
            f"I5: {d.sent} requests to {d.name} came, {len(d.fates)} were accepted and "
            f"{d.refused} counted as refused"
        )
    counts = [d.fates.count(fate) for fate in Fate]
    told = [d.queued, d.ongoing, d.served, d.left, d.ended_poison]
    if counts[: Fate.DELETED] != told:
        names = [fate.name for fate in Fate]
        raise InvariantError(
            f"I1: the requests of {d.name} are {dict(zip(names, counts, strict=True))} and were "
            f"counted as {told}"
        )
    working = sum(len(r.ongoing) for r in mesh.replicas.values() if r.deployment is d)
    if working + len(d.redeliver) > d.ongoing:
        raise InvariantError(
            f"I1: replicas of {d.name} work on {working} requests and {len(d.redeliver)} wait "
            f"again, {d.ongoing} were delivered"
        )
    for replica in mesh.replicas.values():
        if len(replica.ongoing) > replica.slots:
            raise InvariantError(
                f"{replica.replica_id} works on {len(replica.ongoing)} requests and has "
                f"{replica.slots} slots"
            )


def _check_deadlines(d: Deployed, now_s: float) -> None:
    """I4: whoever waits, for the first time or again, waits no longer than until its deadline."""
    waiting = list(d.redeliver)
    i = d.fates.find(Fate.QUEUED)
    while i >= 0:
        waiting.append(i)
        i = d.fates.find(Fate.QUEUED, i + 1)
    for i in waiting:
        deadline_s = d.deadline_s(i)
        if deadline_s < now_s - TOLERANCE_S:
            raise InvariantError(
                f"I4: request {i} of {d.name} waits at {now_s:g} s, its deadline was at "
                f"{deadline_s:g} s"
            )
