"""How long simulated replicas take to start, and which never do. Pure."""

import math
import random
from dataclasses import dataclass

# z of the 95th percentile of a normal distribution.
_Z95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class StartupModel:
    """How the replicas of a deployment start.

    Attributes:
        startup_s: seconds from assigned to ready; the median if `p95_s` is given.
        p95_s: 95th percentile, of a log-normal distribution; None: all take the same.
        never: they load for ever.
        crash_after_s: each start ends with a crash after so many seconds; None: none does.
    """

    startup_s: float = 2.0
    p95_s: float | None = None
    never: bool = False
    crash_after_s: float | None = None

    def draw_s(self, dice: random.Random) -> float:
        """Seconds that one start takes."""
        if self.p95_s is None or self.startup_s <= 0:
            return self.startup_s
        spread = math.log(self.p95_s / self.startup_s) / _Z95
        return dice.lognormvariate(math.log(self.startup_s), spread)
