"""Pure: how long to pause before trying again."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


class Patience:
    """Pauses that grow while nothing succeeds: 0.05 s, doubled each time, up to 2 s."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def pause_s(self, chance: float) -> float:
        """The next pause.

        Args:
            chance: 0 to 1, at random: callers that failed together do not come back together.
        """
        pause_s = self._next_s * (0.5 + chance / 2)
        self._next_s = min(2 * self._next_s, LONGEST_PAUSE_S)
        return pause_s

    def succeeded(self) -> None:
        """Begins again with the shortest pause."""
        self._next_s = FIRST_PAUSE_S
