"""How far nats-server's clock is from ours, while ours is wrong or is set."""

import time
from pathlib import Path

from services.wire import streams
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from tests.support.control_plane import linked
from tests.support.nats_server import NatsServer

TEN_MINUTES_S = 600.0
CLOSE_S = 60.0
"""Far from ten minutes; an exchange takes a while on a busy machine."""


class SetClock:
    """This machine's clock, with a wall clock that is wrong."""

    def __init__(self, wrong_s: float = 0.0) -> None:
        self.wrong_s = wrong_s
        self.later_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.later_s

    def wall_s(self) -> float:
        return time.time() + self.wrong_s


async def sampled(link: NatsLink, clock: SetClock) -> ServerClock:
    await streams.ensure_requests(link.jetstream)
    made = ServerClock(link, clock)
    await made.sample()
    return made


async def test_a_wall_clock_that_is_set_by_ten_minutes_changes_no_wait(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as nats:
        async with linked(nats.url) as link:
            for wrong_s in (TEN_MINUTES_S, -TEN_MINUTES_S):
                clock = SetClock()
                server_clock = await sampled(link, clock)
                stored_ns = time.time_ns()
                clock.wrong_s = wrong_s
                assert server_clock.waited_s(stored_ns) < CLOSE_S
                await server_clock.sample()
                assert server_clock.waited_s(stored_ns) < CLOSE_S
                assert abs(server_clock.now_s() - time.time()) < CLOSE_S


async def test_a_wall_clock_that_was_wrong_from_the_start_counts_for_nothing(
    tmp_path: Path,
) -> None:
    with NatsServer(tmp_path) as nats:
        async with linked(nats.url) as link:
            server_clock = await sampled(link, SetClock(TEN_MINUTES_S))
            assert abs(server_clock.now_s() - time.time()) < CLOSE_S


async def test_a_servers_clock_that_was_set_is_followed_with_the_next_exchange(
    tmp_path: Path,
) -> None:
    """Ours jumps here instead, which is the same seen from the other side."""
    with NatsServer(tmp_path) as nats:
        async with linked(nats.url) as link:
            clock = SetClock()
            server_clock = await sampled(link, clock)
            clock.later_s = TEN_MINUTES_S
            await server_clock.sample()
            assert abs(server_clock.now_s() - time.time()) < CLOSE_S
