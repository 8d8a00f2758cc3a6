"""What autoscalers keep where another one finds it: targets and assignments. Pure."""

from collections.abc import Iterable

from services.autoscaler.roster import Assigned, Roster


class StaleWriteError(Exception):
    """Someone wrote in between, or leads in a later term."""


class Store:
    """Targets and assignments.

    Attributes:
        targets: by deployment.
        roster: what is assigned.
        revisions: of what is assigned to each node.
        epoch: the latest term.
    """

    def __init__(self) -> None:
        """Nothing is kept."""
        self.targets: dict[str, int] = {}
        self.roster = Roster()
        self.revisions: dict[str, int] = {}
        self.epoch = 0
        self._numbers: dict[str, int] = {}

    def put(self, node: str, assigned: Iterable[Assigned], based_on: int, epoch: int) -> int:
        """Keeps what is assigned to a node.

        Args:
            node: its id.
            assigned: everything that it must run.
            based_on: the revision that was looked at.
            epoch: term of the writer.

        Returns:
            The new revision.

        Raises:
            StaleWriteError: if that is not the latest revision, or the term is over.
        """
        if epoch < self.epoch or based_on != self.revisions.get(node, 0):
            raise StaleWriteError(node)
        self.roster.put(node, assigned)
        self.revisions[node] = based_on + 1
        return based_on + 1

    def new_id(self, deployment: str) -> str:
        """An id for a replica that was never given out."""
        number = self._numbers[deployment] = self._numbers.get(deployment, 0) + 1
        return f"{deployment}-{number}"
