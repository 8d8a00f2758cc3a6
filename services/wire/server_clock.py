"""How far nats-server's clock is from ours, so that a queue wait is told by one clock.

JetStream stamps a message with the server's time. The difference to our clock is estimated as NTP
does from one exchange: server time minus the middle of request and response (RFC 5905, section 8,
with one server timestamp); of recent exchanges the quickest counts, since its error is at most
half its round trip.
"""

import json
from collections import deque
from datetime import datetime

import nats.errors
import structlog

from services.runtime.clock import Clock
from services.wire import streams
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

KEPT_SAMPLES = 8


class ServerClock:
    """Estimates nats-server's time."""

    def __init__(self, link: NatsLink, clock: Clock) -> None:
        """Assumes no difference until the first exchange."""
        self._link = link
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque(maxlen=KEPT_SAMPLES)
        self._offset_s = 0.0
        link.on_connected(self.sample)

    async def sample(self) -> None:
        """Makes one exchange. Call now and then."""
        try:
            sent_s = self._clock.wall_s()
            answer = await self._link.client.request(
                f"$JS.API.STREAM.INFO.{streams.REQUESTS}", b"", timeout=2
            )
            received_s = self._clock.wall_s()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("server_clock.no_sample", error=str(error) or type(error).__name__)
            return
        stamp = json.loads(answer.data).get("ts")
        if stamp:
            self._add(sent_s, received_s, parse_time_s(stamp))

    def _add(self, sent_s: float, received_s: float, server_s: float) -> None:
        self._samples.append((received_s - sent_s, server_s - (sent_s + received_s) / 2))
        self._offset_s = min(self._samples)[1]

    def now_s(self) -> float:
        """Seconds since the epoch on nats-server's clock, as far as it is known."""
        return self._clock.wall_s() + self._offset_s

    def waited_s(self, stored_ns: int) -> float:
        """Seconds since a message was stored.

        Args:
            stored_ns: the server's timestamp of the message, nanoseconds since the epoch.
        """
        return max(0.0, self.now_s() - stored_ns / 1e9)


def parse_time_s(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time, whose nanoseconds datetime does not take."""
    whole, _, rest = stamp.partition(".")
    if not rest:
        return datetime.fromisoformat(stamp).timestamp()
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:]
    return datetime.fromisoformat(whole + zone).timestamp() + float(f"0.{rest[:digits]}")
