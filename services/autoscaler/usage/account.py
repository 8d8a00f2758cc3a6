"""What replicas of a deployment held, by hour. Pure: time is an argument, in s since the epoch.

A replica is accounted from when it was first seen assigned until it has left: it is assigned to no
node any more, and its node has said that it does not run. Until when it is accounted is a part of
what is kept, beside the sums that it went into: whoever takes over goes on from there, so that time
is neither lost nor counted twice.

- The time between two looks counts for what was assigned at both, whoever led meanwhile.
- Of a replica that leaves, what is known counts: until the last look that found it there.
- A clock that goes back counts nothing until it has caught up, so that a clock that was wrong for
  a while makes a wrong distribution over hours and a right sum.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

HOUR_S = 3600

MAX_REPLICAS = 4000
"""Of one deployment, those that leave too; four times what one may have. More are not accounted:
what is kept would be too large for one message."""

FORGET_S = 3600.0
"""A replica that left and of which nothing was heard for so long is taken to be gone."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What an assigned replica holds.

    Attributes:
        node: id of its node.
        gpus: a whole number or a fraction; 0: none.
    """

    node: str
    gpus: float


@dataclass(slots=True)
class Sum:
    """Seconds of replicas, and the same times the GPUs of each."""

    replica_s: float = 0.0
    gpu_s: float = 0.0


@dataclass(slots=True)
class Open:
    """A replica that is accounted.

    Attributes:
        node: id of its node.
        gpus: that it holds.
        until_s: how far it is accounted.
        left: revision of the node's assignments that it was found absent from; 0 while assigned.
    """

    node: str
    gpus: float
    until_s: float
    left: int = 0


@dataclass(slots=True)
class Account:
    """One deployment.

    Attributes:
        replicas: those that are accounted, by id.
        hours: sums by the hour's number since the epoch, of hours that may still change.
        sealed_s: up to when nothing changes any more.
    """

    replicas: dict[str, Open] = field(default_factory=dict)
    hours: dict[int, Sum] = field(default_factory=dict)
    sealed_s: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to account and nothing to write."""
        return not self.replicas and not self.hours

    def assigned(self, replica_id: str, holding: Holding, now_s: float) -> bool:
        """Takes note of a replica that is assigned; returns whether it is new."""
        known = self.replicas.get(replica_id)
        if known is not None:
            known.left = 0
            return False
        if len(self.replicas) >= MAX_REPLICAS:
            return False
        # An hour that is sealed stays as it is, even if the clock goes back.
        since_s = max(now_s, self.sealed_s)
        self.replicas[replica_id] = Open(holding.node, holding.gpus, since_s)
        return True

    def advance(self, replica_id: str, now_s: float) -> None:
        """Accounts a replica until now."""
        replica = self.replicas[replica_id]
        while replica.until_s < now_s:
            hour = int(replica.until_s // HOUR_S)
            end_s = min(now_s, (hour + 1.0) * HOUR_S)
            length_s = end_s - replica.until_s
            into = self.hours.setdefault(hour, Sum())
            into.replica_s += length_s
            into.gpu_s += length_s * replica.gpus
            replica.until_s = end_s

    def settle(self, now_s: float) -> None:
        """Accounts all that are assigned until now."""
        for replica_id, replica in self.replicas.items():
            if not replica.left:
                self.advance(replica_id, now_s)

    def ended(self, now_s: float) -> list[int]:
        """Hours that are over and that no replica has time in any more."""
        least_s = min((r.until_s for r in self.replicas.values()), default=now_s)
        return [hour for hour in self.hours if (hour + 1) * HOUR_S <= min(now_s, least_s)]

    def seal(self, hours: list[int]) -> None:
        """Forgets hours that are written and over."""
        for hour in hours:
            del self.hours[hour]
            self.sealed_s = max(self.sealed_s, (hour + 1.0) * HOUR_S)

    def write(self) -> bytes:
        """As it is kept."""
        return json.dumps(
            {
                "replicas": {
                    replica_id: [r.node, r.gpus, round(r.until_s, 3), r.left]
                    for replica_id, r in self.replicas.items()
                },
                "hours": {
                    str(hour): [round(total.replica_s, 3), round(total.gpu_s, 3)]
                    for hour, total in self.hours.items()
                },
                "sealed_s": self.sealed_s,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def read(cls, kept: bytes) -> "Account":
        """What was kept.

        Raises:
            ValueError: if it is not what `write` makes.
        """
        try:
            said = json.loads(kept)
            return cls(
                {name: Open(*values) for name, values in said["replicas"].items()},
                {int(hour): Sum(*values) for hour, values in said["hours"].items()},
                float(said["sealed_s"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no account: {error}") from error


class Accounts:
    """All deployments, as the leading autoscaler accounts them.

    Attributes:
        by_deployment: by id.
        changed: ids of those in which a replica came, left or went since they were written.
    """

    def __init__(self, kept: Mapping[str, Account]) -> None:
        """Goes on from what was kept.

        Args:
            kept: by deployment.
        """
        self.by_deployment: dict[str, Account] = dict(kept)
        self.changed: set[str] = set()
        # Of which replicas it is known, since this object was made, that they were assigned.
        self._on: dict[str, dict[str, str]] = {}

    def assign(
        self, node: str, revision: int, held: Mapping[str, tuple[str, Holding]], now_s: float
    ) -> None:
        """Takes note of everything that a node is assigned.

        Args:
            node: id of the node.
            revision: of its assignments.
            held: deployment and holding of each replica, by its id.
            now_s: when that was seen.
        """
        before = self._on.get(node, {})
        for replica_id in before.keys() - held.keys():
            deployment = before[replica_id]
            account = self.by_deployment[deployment]
            if replica_id in account.replicas:
                # It was assigned a moment ago, and what is assigned is held.
                account.advance(replica_id, now_s)
                account.replicas[replica_id].left = max(1, revision)
                self.changed.add(deployment)
        for replica_id, (deployment, holding) in held.items():
            account = self.by_deployment.setdefault(deployment, Account())
            if account.assigned(replica_id, holding, now_s):
                self.changed.add(deployment)
        self._on[node] = {replica_id: deployment for replica_id, (deployment, _) in held.items()}

    def all_assigned(self, revisions: Mapping[str, int]) -> None:
        """Takes note that every node was told of: what was kept and is nowhere assigned has left.

        Args:
            revisions: of the assignments of each node.
        """
        assigned = {replica_id for held in self._on.values() for replica_id in held}
        for deployment, account in self.by_deployment.items():
            for replica_id, replica in account.replicas.items():
                if replica_id not in assigned and not replica.left:
                    replica.left = max(1, revisions.get(replica.node, 1))
                    self.changed.add(deployment)

    def leaving(self) -> dict[str, tuple[str, int]]:
        """Node, and revision without it, of each replica that is assigned no more, by id."""
        return {
            replica_id: (replica.node, replica.left)
            for account in self.by_deployment.values()
            for replica_id, replica in account.replicas.items()
            if replica.left
        }

    def look(self, there: Mapping[str, bool], now_s: float) -> None:
        """Accounts those that leave.

        Args:
            there: by replica id, whether it may still run; what is not known is left out.
            now_s: when that was seen.
        """
        for deployment, account in self.by_deployment.items():
            for replica_id, replica in list(account.replicas.items()):
                if not replica.left:
                    continue
                runs = there.get(replica_id)
                if runs:
                    account.advance(replica_id, now_s)
                elif runs is not None or now_s - replica.until_s > FORGET_S:
                    del account.replicas[replica_id]
                    self.changed.add(deployment)

    def settle(self, now_s: float) -> None:
        """Accounts all that are assigned until now."""
        for account in self.by_deployment.values():
            account.settle(now_s)
