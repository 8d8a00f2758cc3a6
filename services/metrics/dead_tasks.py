"""How many tasks of each deployment became dead letters. Pure.

Heard as they are written, so none is counted that was written while nobody listened. A task whose
letter is written again, since the first word of it was lost, is one.
"""

MAX_REMEMBERED = 10_000
"""Dead letters told from one that is written again, which is so within seconds."""


class DeadTasks:
    """Dead letters since each deployment is known."""

    def __init__(self) -> None:
        """None so far."""
        self._counts: dict[str, int] = {}
        self._recent: dict[tuple[str, str], None] = {}

    def add(self, deployment: str, task_id: str) -> None:
        """Takes note of a dead letter of a declared deployment."""
        key = (deployment, task_id)
        if key in self._recent:
            return
        if len(self._recent) >= MAX_REMEMBERED:
            del self._recent[next(iter(self._recent))]
        self._recent[key] = None
        self._counts[deployment] = self._counts.get(deployment, 0) + 1

    def count(self, deployment: str) -> int:
        """Dead letters of a deployment."""
        return self._counts.get(deployment, 0)

    def keep(self, deployments: set[str]) -> None:
        """Forgets all but the given deployments."""
        for gone in self._counts.keys() - deployments:
            del self._counts[gone]
