"""How long simulated requests take. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

# z of the 95th and the 99th percentile of a normal distribution.
Z95 = 1.6448536269514722
Z99 = 2.3263478740408408

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """Times inside the replica, in seconds, of the requests of one deployment.

    Attributes:
        median_s: of a log-normal distribution, or what all take.
        sigma: spread of its logarithm; 0: all take the same.
        least_s, most_s: none takes less or more.
        recorded_s: times to draw from instead; empty: the distribution.
    """

    median_s: float = 1.0
    sigma: float = 0.0
    least_s: float = 0.0
    most_s: float = math.inf
    recorded_s: Sequence[float] = ()

    def draws(self, seed: Sequence[int]) -> Iterator[float]:
        """Times without end; the same for the same seed."""
        if not self.recorded_s and not self.sigma:
            return repeat(self.median_s)
        return self._drawn(np.random.default_rng(list(seed)))

    def _drawn(self, dice: np.random.Generator) -> Iterator[float]:
        recorded = np.asarray(self.recorded_s, dtype=float)
        while True:
            if recorded.size:
                drawn = dice.choice(recorded, _CHUNK)
            else:
                drawn = self.median_s * np.exp(self.sigma * dice.standard_normal(_CHUNK))
                drawn = np.clip(drawn, self.least_s, self.most_s)
            yield from drawn.tolist()


def log_normal(p50_s: float, p95_s: float) -> ServiceTimes:
    """Times of which half are at most `p50_s` and 95 of 100 at most `p95_s`."""
    return ServiceTimes(p50_s, math.log(p95_s / p50_s) / Z95)
