"""How far nats-server's clock is from ours, so that a queue wait is told by one clock.

JetStream stamps a message with the server's time. The difference to our clock is estimated as NTP
does from one exchange: server time minus the middle of request and response (RFC 5905, section 8,
with one server timestamp); of recent exchanges the quickest counts, since its error is at most
half its round trip.

Our clock is the monotonic one. By the wall clock, an agent whose machine's time was put forward by
ten minutes took all that waited for expired, and answered nothing until the exchanges from before
had been forgotten 80 s later. Where it is the server's clock that was set, what was known of it is
forgotten with the next exchange.
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

STEP_S = 0.1
"""Two exchanges that differ by more than their errors and this have a set clock between them. Two
clocks that run apart by 500 millionths, the most that NTP corrects, part by 40 ms in 80 s."""


class ServerClock:
    """Estimates nats-server's time."""

    def __init__(self, link: NatsLink, clock: Clock) -> None:
        """Takes this machine's wall clock for the server's until the first exchange."""
        self._link = link
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque(maxlen=KEPT_SAMPLES)
        self._offset_s = clock.wall_s() - clock.monotonic_s()
        link.on_connected(self.sample)

    async def sample(self) -> None:
        """Makes one exchange. Call now and then."""
        try:
            sent_s = self._clock.monotonic_s()
            answer = await self._link.client.request(
                f"$JS.API.STREAM.INFO.{streams.REQUESTS}", b"", timeout=2
            )
            received_s = self._clock.monotonic_s()
        except (nats.errors.Error, TimeoutError) as error:
            log.debug("server_clock.no_sample", error=str(error) or type(error).__name__)
            return
        stamp = json.loads(answer.data).get("ts")
        if stamp:
            self._add(sent_s, received_s, parse_time_s(stamp))

    def _add(self, sent_s: float, received_s: float, server_s: float) -> None:
        took_s, offset_s = received_s - sent_s, server_s - (sent_s + received_s) / 2
        if self._samples:
            error_s = (took_s + min(self._samples)[0]) / 2
            if abs(offset_s - self._offset_s) > error_s + STEP_S:
                log.warning("server_clock.set", by_s=round(offset_s - self._offset_s, 3))
                self._samples.clear()
        self._samples.append((took_s, offset_s))
        self._offset_s = min(self._samples)[1]

    def now_s(self) -> float:
        """Seconds since the epoch on nats-server's clock, as far as it is known."""
        return self._clock.monotonic_s() + self._offset_s

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
