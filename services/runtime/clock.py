"""The only place that asks what time it is.

Decisions take time as an argument; shells take a Clock and pass what it says.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def monotonic_s(self) -> float:
        """Seconds since some start; never goes back."""
        ...

    def wall_s(self) -> float:
        """Seconds since the epoch; for people and for protos only."""
        ...


class SystemClock:
    """This machine's clock."""

    def monotonic_s(self) -> float:
        """Seconds since some start; never goes back."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since the epoch; for people and for protos only."""
        return time.time()
