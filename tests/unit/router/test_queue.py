"""What the router's side of the queue holds on to, and what it lets go."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_UNAVAILABLE, RequestEnvelope
from services.router.body_arena import PAGE_BYTES, BodyArena
from services.router.counters import RouterCounters
from services.router.lost_replies import LOOK_AFTER_S
from services.router.pending import PendingCall, PendingCalls
from services.router.queue import ACCEPT_TIMEOUT_S, MAX_BACKLOG_BYTES, RequestQueue
from services.runtime.clock import SystemClock
from services.wire import streams
from services.wire.nats_link import NatsLink
from services.wire.outcomes import OutcomeError
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


class SkippingClock(SystemClock):
    """This machine's clock, moved on by hand."""

    skipped_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.skipped_s


def call(number: int, body: bytes = b"") -> PendingCall:
    return PendingCall(
        request_id=f"{number}",
        deployment="a",
        envelope=RequestEnvelope(request_id=f"{number}", body=body),
        deadline_s=SystemClock().monotonic_s() + 60,
        attempt_limit_s=1.0,
        size=len(body),
        reply=asyncio.get_running_loop().create_future(),
        message_id=f"{number}",
    )


async def test_the_block_of_a_call_that_was_never_sent_is_free_at_once() -> None:
    arena = BodyArena(PAGE_BYTES)
    clock = SystemClock()
    link = NatsLink("router", "nats://127.0.0.1:1")
    queue = RequestQueue(link, "r", PendingCalls(9, 9), arena, clock, RouterCounters())
    try:
        unsent = call(1)
        unsent.block = arena.store(b"body", clock.monotonic_s())
        with pytest.raises(OutcomeError) as caught:
            queue.publish(unsent)
        assert caught.value.outcome == OUTCOME_UNAVAILABLE
        queue.finish(unsent, None)
        assert arena.store(b"next", clock.monotonic_s()) is not None
    finally:
        arena.close()


async def test_a_request_whose_reply_was_lost_is_done_again(tmp_path: Path) -> None:
    clock, pending, stopping = SkippingClock(), PendingCalls(100, 1 << 30), asyncio.Event()
    with NatsServer(tmp_path / "nats") as server:
        link = NatsLink("router", server.url)
        queue = RequestQueue(link, "r", pending, BodyArena(0), clock, RouterCounters())
        running = asyncio.ensure_future(link.run(stopping))
        async with linked(server.url) as agent:
            await streams.ensure_request_consumer(agent.jetstream, "a")
            await eventually(lambda: link.connected)
            bound = await agent.jetstream.pull_subscribe_bind("a", streams.REQUESTS)
            lost, waiting = call(1), call(2)
            for one in (lost, waiting):
                pending.add(one)
                queue.publish(one)
            done, ongoing = await bound.fetch(2, timeout=10)
            # Its reply was sent while the router had no connection.
            await done.ack_sync()
            await queue._on_connected()
            await eventually(lambda: lost.accepted_duplicate and waiting.accepted_duplicate)
            clock.skipped_s = 2 * LOOK_AFTER_S
            await queue.sweep()
            (again,) = await bound.fetch(5, timeout=1)
            assert RequestEnvelope.FromString(again.data).request_id == lost.request_id
            assert RequestEnvelope.FromString(ongoing.data).request_id == waiting.request_id
            assert (lost.publish_count, waiting.publish_count) == (3, 2)
        stopping.set()
        await running
        await link.close()


async def test_nothing_is_published_again_while_the_server_takes_nothing(tmp_path: Path) -> None:
    clock = SkippingClock()
    pending = PendingCalls(100, 1 << 30)
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            queue = RequestQueue(link, "r", pending, BodyArena(0), clock, RouterCounters())
            os.kill(server.pid, signal.SIGSTOP)
            try:
                calls = [call(number, bytes(1 << 20)) for number in range(30)]
                for held in calls:
                    pending.add(held)
                    queue.publish(held)
                await asyncio.sleep(0)
                backlog = link.client.backlog_bytes
                assert backlog > MAX_BACKLOG_BYTES
                clock.skipped_s = 2 * ACCEPT_TIMEOUT_S
                await queue.sweep()
                assert link.client.backlog_bytes <= backlog
                assert {held.publish_count for held in calls} == {1}
            finally:
                os.kill(server.pid, signal.SIGCONT)
