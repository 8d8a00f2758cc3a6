"""How many requests are stored per second, from successive states of a consumer.

Pure: time is an argument.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Self

SLOTS = 30
"""Parts of a window; it holds no more steps than that and one."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What JetStream says of a consumer.

    Attributes:
        incarnation: differs when the consumer was created anew.
        pending: stored and not delivered.
        delivered: deliveries since the consumer exists, repeated ones included.
        delivered_sequence: highest stream sequence delivered. Only first deliveries raise it; what
            is stored for other deployments does not.
        ongoing: delivered and not settled.
        redelivered: of these, delivered more than once; a message counts once however often.
    """

    incarnation: str
    pending: int
    delivered: int
    delivered_sequence: int
    ongoing: int
    redelivered: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """From JetStream's answer to CONSUMER.INFO."""
        delivered = answer["delivered"]
        return cls(
            incarnation=answer["created"],
            pending=answer["num_pending"],
            delivered=delivered["consumer_seq"],
            delivered_sequence=delivered["stream_seq"],
            ongoing=answer["num_ack_pending"],
            redelivered=answer["num_redelivered"],
        )

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.pending and not self.ongoing


class ArrivalWindow:
    """Arrivals per second over the last `length_s` seconds.

    What is stored is pending or was delivered for the first time, so arrivals are the growth of
    both. First deliveries are told from repeated ones by two bounds: the growth of all deliveries
    less that of `redelivered`, and the growth of the highest delivered stream sequence, which a
    repeated delivery leaves as it is. While nothing is delivered for the first time that is exact
    however often a message comes again. While a deployment is busy, and others fill the same
    stream, the second and later deliveries of one message hide among them: at most one for each
    message in `redelivered` and acknowledgement wait (10 s).
    """

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._before: QueueState | None = None
        self._before_s = 0.0
        # Start, end and arrivals of each step.
        self._steps: deque[tuple[float, float, int]] = deque()
        self._stored = 0

    def add(self, now_s: float, state: QueueState) -> None:
        """Takes note of a state; `now_s` never goes back."""
        before = self._before
        self._forget(now_s)
        if before is not None and before.incarnation == state.incarnation:
            self._append(now_s, _stored(before, state))
        self._before, self._before_s = state, now_s

    def per_second(self, now_s: float) -> float | None:
        """Mean over the window; None until two states have been seen in it."""
        self._forget(now_s)
        if not self._steps:
            return None
        duration_s = self._steps[-1][1] - self._steps[0][0]
        return self._stored / duration_s if duration_s > 0 else None

    def _append(self, now_s: float, stored: int) -> None:
        self._stored += stored
        if self._steps:
            start_s, end_s, held = self._steps[-1]
            if end_s == self._before_s and now_s - start_s < self._length_s / SLOTS:
                self._steps[-1] = (start_s, now_s, held + stored)
                return
        self._steps.append((self._before_s, now_s, stored))

    def _forget(self, now_s: float) -> None:
        # By their ends: a queue that is asked every 20 s has steps nearly as long as the window.
        while self._steps and now_s - self._steps[0][1] >= self._length_s:
            self._stored -= self._steps.popleft()[2]


def _stored(before: QueueState, now: QueueState) -> int:
    repeated = max(0, now.redelivered - before.redelivered)
    first = min(
        max(0, now.delivered - before.delivered - repeated),
        max(0, now.delivered_sequence - before.delivered_sequence),
    )
    # Requests that expire while they wait make it negative.
    return max(0, now.pending - before.pending + first)
