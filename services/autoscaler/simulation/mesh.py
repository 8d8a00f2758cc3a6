"""Nodes, replicas and requests as they would be, on a virtual clock. Pure.

What it models: a queue for each deployment, first in first out; a free slot takes the next request,
the slot that has been free for longest first; a replica that is removed finishes what it has; what
was lost with a node is delivered again after the ack wait, before all that waits, at most
MAX_DELIVERIES times, and never after its deadline.
"""

import random
from collections.abc import Callable, Mapping
from heapq import heappush

from services.autoscaler.capacity import Node
from services.autoscaler.roster import Assigned
from services.autoscaler.simulation import requests
from services.autoscaler.simulation.agenda import Agenda
from services.autoscaler.simulation.deployed import Deployed, Fate, SimReplica
from services.autoscaler.simulation.ownership import check_empty, check_owners
from services.autoscaler.simulation.sim_node import SimNode
from services.autoscaler.view import State

ACK_WAIT_S = 10.0
"""After how long a delivery that nobody speaks of is made again."""

GIVEN_BACK_S = 0.05
"""After how long a request is delivered again whose replica crashed."""

MAX_DELIVERIES = 5
MAX_START_COUNT = 5
"""After so many starts a replica that crashes is FAILED."""

REFUSED_AGAIN_S = 1.0
"""How long a user waits who was refused."""


Note = Callable[[str, str, str], None]
"""Told what happened: kind, deployment and what exactly, such as a replica's id."""


class Mesh:
    """Everything but the autoscaler.

    Attributes:
        agenda: the clock and what is to come.
        deployed: deployments by id, deleted ones included.
        nodes: by id.
        replicas: all that are not stopped, by id.
        touched: deployments of which something changed since the autoscaler looked.
        moved: whether nodes or replicas changed since then.
        on_wake: called when a request waits for the first replica of a deployment.
        on_lost: called when a node goes away.
        note: told what happens; None: nobody listens.
        absent_count: nodes that are away.
        unlimited: nodes have room for any number of replicas.
    """

    def __init__(self, seed: int = 0) -> None:
        """An empty mesh."""
        self.agenda = Agenda()
        self.dice = random.Random(seed)  # noqa: S311, nothing secret
        self.deployed: dict[str, Deployed] = {}
        self.nodes: dict[str, SimNode] = {}
        self.replicas: dict[str, SimReplica] = {}
        self.touched: set[Deployed] = set()
        self.moved = True
        self.on_wake: Callable[[Deployed], None] = lambda _: None
        self.on_lost: Callable[[SimNode], None] = lambda _: None
        self.note: Note | None = None
        self.unlimited = False
        self.absent_count = 0

    # Requests.

    def arrive(self, d: Deployed) -> None:
        """One request comes in now."""
        agenda = self.agenda
        d.sent += 1
        if d.queued + d.ongoing >= d.max_held or d.deleted:
            d.refused += 1
            self._ended(d, "refused", refused=True)
            return
        i = len(d.fates)
        d.fates.append(0)
        d.arrived.append(agenda.now_s)
        d.service_s.append(next(d.services))
        self.touched.add(d)
        if self.note is not None:
            self.note("arrives", d.name, "")
        if d.free and not d.redeliver:
            self._deliver(d, d.free.popleft(), i)
            return
        d.queue.append(i)
        d.queued += 1
        agenda.at(agenda.now_s + d.patience_s, self._leave, d, i)
        if d.wakes:
            self.on_wake(d)

    def _deliver(self, d: Deployed, replica: SimReplica, i: int) -> None:
        agenda = self.agenda
        now_s = agenda.now_s
        d.fates[i] = 1
        d.ongoing += 1
        waited_s = now_s - d.arrived[i]
        d.waits_s.append(waited_s)
        if waited_s > d.least_patience_s:
            requests.check_begun(d, i, now_s)
        replica.ongoing.add(i)
        agenda.number += 1
        heappush(
            agenda.heap,
            (now_s + d.service_s[i], agenda.number, self._done, (d, replica, i, replica.life)),
        )

    def _deliver_again(self, d: Deployed, replica: SimReplica) -> None:
        i = d.redeliver.popleft()
        requests.check_begun(d, i, self.agenda.now_s)
        d.deliveries[i] = d.deliveries.get(i, 1) + 1
        replica.ongoing.add(i)
        self.agenda.after(d.service_s[i], self._done, d, replica, i, replica.life)
        if self.note is not None:
            self.note("redelivered", d.name, replica.replica_id)

    def _done(self, d: Deployed, replica: SimReplica, i: int, life: int) -> None:
        if replica.life != life:
            return
        if d.poison and i in d.poison:
            self.crash(replica)
            return
        if i not in replica.ongoing or replica.state is State.STARTING:
            requests.check_answer(d, replica, i, self.agenda.now_s)
        replica.ongoing.remove(i)
        d.served += 1
        d.served_s += d.service_s[i]
        # What `_settle` does: the call would be a tenth of all the time of a run.
        if d.fates[i] != 1:
            self._settle(d, i, Fate.SERVED)
        d.fates[i] = 2
        d.ongoing -= 1
        self.touched.add(d)
        if d.redelivered:
            d.redelivered.discard(i)
        if self.note is not None:
            self.note("served", d.name, "")
        if replica.state is State.READY:
            if d.redeliver:
                self._deliver_again(d, replica)
            elif d.queued:
                self._deliver(d, replica, self._next(d))
            else:
                d.free.append(replica)
        elif not replica.ongoing:
            self._stop(replica)
        if d.users is not None:
            self._ended(d, "", refused=False)

    def _next(self, d: Deployed) -> int:
        """The request that has waited for longest; there is one."""
        queue, fates = d.queue, d.fates
        i = queue.popleft()
        while fates[i]:
            i = queue.popleft()
        d.queued -= 1
        return i

    def _settle(self, d: Deployed, i: int, fate: Fate) -> None:
        requests.check_end(d, i, fate, self.agenda.now_s)
        d.fates[i] = fate
        d.ongoing -= 1
        if d.redelivered:
            d.redelivered.discard(i)
        self.touched.add(d)

    def _leave(self, d: Deployed, i: int) -> None:
        """A client that still waits gives up."""
        if d.fates[i] == 0:
            d.fates[i] = Fate.LEFT
            d.queued -= 1
        elif i in d.redeliver:
            d.redeliver.remove(i)
            self._settle(d, i, Fate.LEFT)
        else:
            return
        d.left += 1
        self.touched.add(d)
        self._ended(d, "leaves", refused=False)

    def _ended(self, d: Deployed, kind: str, refused: bool) -> None:
        if kind and self.note is not None:
            self.note(kind, d.name, "")
        if d.users is not None:
            d.users.ended(self, d, refused)

    def _lose(self, replica: SimReplica, after_s: float) -> None:
        """What a replica was working on is delivered again, in a while."""
        replica.life += 1
        for i in sorted(replica.ongoing):
            self.agenda.after(after_s, self._again, replica.deployment, i)
        replica.ongoing.clear()

    def _again(self, d: Deployed, i: int) -> None:
        if d.deliveries.get(i, 1) >= MAX_DELIVERIES or d.deleted:
            d.ended_poison += 1
            self._settle(d, i, Fate.POISON)
            self._ended(d, "poison", refused=False)
            return
        d.redelivered.add(i)
        d.redeliver.append(i)
        self.touched.add(d)
        deadline_s = d.deadline_s(i)
        if self.agenda.now_s > deadline_s:
            self._leave(d, i)
            return
        self.agenda.at(deadline_s, self._leave, d, i)
        self._serve(d)

    def _serve(self, d: Deployed) -> None:
        """Free slots take what waits."""
        while d.free and (d.redeliver or d.queued):
            replica = d.free.popleft()
            if d.redeliver:
                self._deliver_again(d, replica)
            else:
                self._deliver(d, replica, self._next(d))

    # Replicas.

    def assign(
        self, node_id: str, assigned: Mapping[str, Assigned], revision: int, epoch: int
    ) -> None:
        """Tells a node what it must run; one that is away is told when it is back."""
        node = self.nodes[node_id]
        if epoch < node.epoch:
            return
        node.epoch = epoch
        node.told, node.told_revision = dict(assigned), revision
        if node.present:
            self._reconcile(node)

    def _reconcile(self, node: SimNode) -> None:
        for replica in [r for r in node.replicas.values() if r.replica_id not in node.told]:
            if replica.state is not State.DRAINING:
                self._drain(replica)
        for replica_id, told in node.told.items():
            if replica_id not in node.replicas:
                self._start_new(node, told)
        node.applied_revision = node.told_revision
        self.moved = True

    def _start_new(self, node: SimNode, told: Assigned) -> None:
        d = self.deployed[told.deployment]
        replica = SimReplica(
            told.replica_id, d, node.name, told.generation, told.share, self.agenda.now_s
        )
        node.replicas[replica.replica_id] = self.replicas[replica.replica_id] = replica
        if not self.unlimited:
            check_owners(node, self.agenda.now_s, self.nodes.values())
        d.assigned += 1
        d.starts += 1
        if self.note is not None:
            self.note("starts", d.name, f"{replica.replica_id}{node.where(replica.share)}")
        self._start(replica)

    def _start(self, replica: SimReplica) -> None:
        self._become(replica, State.STARTING)
        replica.start += 1
        model = replica.deployment.startup
        if model.crash_after_s is not None:
            self.agenda.after(model.crash_after_s, self._crash_starting, replica, replica.start)
        elif not model.never:
            startup_s = model.draw_s(self.dice)
            self.agenda.after(startup_s, self._ready, replica, replica.start)

    def _crash_starting(self, replica: SimReplica, start: int) -> None:
        if replica.start == start and replica.state is State.STARTING:
            self.crash(replica)

    def _ready(self, replica: SimReplica, start: int) -> None:
        node = self.nodes[replica.node]
        if replica.start != start or replica.state is not State.STARTING:
            return
        if node.fault_of(replica.share):
            return
        self._become(replica, State.READY)
        if replica.ready_s is None:
            replica.ready_s = self.agenda.now_s
        if self.note is not None:
            self.note("ready", replica.deployment.name, replica.replica_id)
        self._open(replica)

    def _open(self, replica: SimReplica) -> None:
        """A replica that is READY takes requests, unless its node is away."""
        if self.nodes[replica.node].present:
            d = replica.deployment
            d.free.extend([replica] * (replica.slots - len(replica.ongoing)))
            self._serve(d)

    def crash(self, replica: SimReplica) -> None:
        """Its Triton dies: it starts again, and what it had is given back."""
        if self.note is not None:
            self.note("crashes", replica.deployment.name, replica.replica_id)
        self._close(replica)
        self._lose(replica, GIVEN_BACK_S)
        if replica.state is State.DRAINING:
            self._stop(replica)
        elif replica.start_count >= MAX_START_COUNT:
            self._become(replica, State.FAILED)
            if self.note is not None:
                self.note("fails", replica.deployment.name, replica.replica_id)
        else:
            replica.start_count += 1
            self._start(replica)

    def _drain(self, replica: SimReplica) -> None:
        self._close(replica)
        if replica.ongoing:
            self._become(replica, State.DRAINING)
            if self.note is not None:
                self.note("drains", replica.deployment.name, replica.replica_id)
        else:
            self._stop(replica)

    def _close(self, replica: SimReplica) -> None:
        """It takes nothing more."""
        d = replica.deployment
        if replica in d.free:
            d.free = type(d.free)(r for r in d.free if r is not replica)

    def _stop(self, replica: SimReplica) -> None:
        requests.check_idle(replica, self.agenda.now_s)
        replica.start += 1
        name = replica.deployment.name
        replica.deployment.assigned -= 1
        self.nodes[replica.node].replicas.pop(replica.replica_id, None)
        self.replicas.pop(replica.replica_id, None)
        if self.note is not None:
            self.note("stops", name, replica.replica_id)
        self._become(replica, State.STOPPED)

    def _become(self, replica: SimReplica, state: State) -> None:
        d = replica.deployment
        self.moved = True
        self.touched.add(d)
        if replica.state is not state:
            d.ready += (state is State.READY) - (replica.state is State.READY)
            replica.state = state
        d.note_level(self.agenda.now_s)

    # Nodes.

    def add_node(self, node: Node) -> None:
        """A node reports for the first time."""
        self.nodes[node.name] = SimNode(node)
        self._node_changed(self.nodes[node.name], "node joins")

    def lose_node(self, node_id: str, dies: bool) -> None:
        """A node goes away: cut off, or dead with all that it ran."""
        node = self.nodes[node_id]
        self.absent_count += 1
        node.present, node.died, node.silent_since_s = False, dies, self.agenda.now_s
        for replica in node.replicas.values():
            self._close(replica)
            self._lose(replica, ACK_WAIT_S)
        self._node_changed(node, "node dies" if dies else "node is cut off")
        self.on_lost(node)

    def return_node(self, node_id: str) -> None:
        """A node is back: with its replicas as they were, or with none if it had died."""
        node = self.nodes[node_id]
        node.present = True
        self.absent_count -= 1
        self._node_changed(node, "node is back")
        if node.died:
            for replica in list(node.replicas.values()):
                self._stop(replica)
        self._reconcile(node)
        for replica in list(node.replicas.values()):
            if replica.state is State.READY:
                self._open(replica)

    def fail_gpu(self, node_id: str, number: int, fault: str) -> None:
        """A GPU fails, or works again if there is no fault: what is on it crashes and starts."""
        node = self.nodes[node_id]
        uuid = node.set_fault(number, fault)
        for replica in [r for r in node.replicas.values() if uuid in r.share.gpu_uuids]:
            self.crash(replica)
        self._node_changed(node, f"GPU {number} {'fails' if fault else 'works again'} on")

    def release_node(self, node_id: str) -> None:
        """A node is taken away by its provider; it runs nothing."""
        node = self.nodes.pop(node_id)
        check_empty(node, self.agenda.now_s)
        self._node_changed(node, "node goes")

    def _node_changed(self, node: SimNode, kind: str) -> None:
        self.moved = True
        # Also those that have no place yet.
        self.touched.update(self.deployed.values())
        if self.note is not None:
            self.note(kind, "", node.name)
