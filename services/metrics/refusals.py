"""Reports that were refused: counted by reason, and said once a minute for each node.

Pure: time is an argument.
"""

from services.metrics.report_check import Refusal

SAY_AGAIN_S = 60.0


class Refusals:
    """Counts by reason.

    Attributes:
        counts: how many reports were refused, every reason included.
    """

    def __init__(self) -> None:
        self.counts: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self._said_s: dict[str, float] = {}

    def add(self, now_s: float, node: str, reason: Refusal) -> bool:
        """Counts a refusal and returns whether to log it.

        Args:
            now_s: monotonic seconds.
            node: id of the node; empty if it has none. Nodes are bounded, so this is too.
            reason: why.
        """
        self.counts[reason] += 1
        if now_s - self._said_s.get(node, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return False
        self._said_s[node] = now_s
        return True

    def forget(self, nodes: set[str]) -> None:
        """Forgets all but the given nodes."""
        for node in self._said_s.keys() - nodes:
            del self._said_s[node]
