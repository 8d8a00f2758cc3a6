"""Callbacks from a real queue to real HTTP servers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.autoscaler.callbacks import addresses, retries
from services.autoscaler.callbacks.caller import Caller
from services.autoscaler.callbacks.dispatcher import Dispatcher
from services.wire.instants import timestamp
from services.wire.stored_publisher import StreamFullError
from services.wire.tasks import states, streams, subjects
from services.wire.tasks.ledger import task_name
from tests.support.control_plane import ControlPlane, linked
from tests.support.eventually import eventually
from tests.support.leading import Leading, leading
from tests.support.nats_server import NatsServer

SECRET = "whsec_" + "A" * 43 + "="
TIMEOUT_S = 20.0
LOOPBACK = "127.0.0.0/8"


@dataclass
class Receiver:
    """A server that checks signatures as its docs say, and answers what the test says.

    Attributes:
        url: where it is called.
        answers: statuses of the first answers; 204 after them. None never answers.
        ids: `webhook-id` of each call.
        messages: what was said.
    """

    url: str = ""
    location: str = ""
    answers: list[int | None] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    messages: list[dict] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.messages.append(Webhook(SECRET).verify(body, dict(request.headers)))
        self.ids.append(request.headers["webhook-id"])
        status = self.answers.pop(0) if self.answers else 204
        if status is None:
            await asyncio.Event().wait()
        headers = {"location": self.location} if self.location else None
        return web.Response(status=status, headers=headers, text="x" * 100_000)

    @asynccontextmanager
    async def serving(self, host: str = "127.0.0.1") -> AsyncIterator["Receiver"]:
        app = web.Application()
        app.router.add_post("/done", self.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, 0).start()
            self.url = f"http://{host}:{runner.addresses[0][1]}/done"
            yield self
        finally:
            await runner.cleanup()


@dataclass
class Calling:
    """A leader that calls back."""

    parts: Leading
    running: asyncio.Task[None]

    async def end(self, task_id: str, url: str, state: Task.State = Task.STATE_SUCCEEDED) -> None:
        """Has a task end with a callback."""
        task = Task(
            name=task_name("add", task_id),
            state=state,
            outcome=states.OUTCOMES.get(state),
            callback_url=url,
            end_time=timestamp(self.parts.clock.wall_s()),
        )
        task.result_ttl.FromSeconds(3600)
        assert await self.parts.ledger.finish(task)

    async def ordered(self) -> int:
        """Calls that have not been taken."""
        info = await self.parts.link.jetstream.stream_info(streams.CALLBACKS)
        return int(info.state.messages)

    async def settled(self, timeout_s: float = 30.0) -> None:
        """Returns when every call has been taken or given up."""

        async def is_settled() -> bool:
            return await self.ordered() == 0

        await eventually(is_settled, timeout_s=timeout_s)


@asynccontextmanager
async def calling(
    parts: Leading, secret_file: Path | None, allowed: str, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Calling]:
    caller = Caller(addresses.parse_networks(allowed), timeout_s)
    dispatcher = Dispatcher(
        parts.link, parts.leadership, parts.clock, parts.server_clock, caller, secret_file
    )
    running = asyncio.ensure_future(dispatcher.run())
    try:
        yield Calling(parts, running)
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled() or not running.exception()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Leading]:
    with NatsServer(tmp_path / "nats") as server:
        async with leading(server.url) as made:
            yield made


@pytest.fixture
async def calls(parts: Leading, secret_file: Path) -> AsyncIterator[Calling]:
    async with calling(parts, secret_file, LOOPBACK) as made:
        yield made


async def test_each_end_is_told_once_with_a_signature_that_verifies(calls: Calling) -> None:
    async with Receiver().serving() as receiver:
        for number in range(40):
            await calls.end(f"t{number}", receiver.url)
        await calls.end("failed", receiver.url, Task.STATE_EXPIRED)
        await calls.settled()
    said = {message["data"]["name"]: message["type"] for message in receiver.messages}
    assert len(receiver.messages) == len(said) == 41
    assert said["deployments/add/tasks/t7"] == "task.succeeded"
    assert said["deployments/add/tasks/failed"] == "task.expired"
    assert len(set(receiver.ids)) == 41


async def test_a_call_that_was_not_taken_is_made_again_by_the_same_id(calls: Calling) -> None:
    async with Receiver(answers=[500]).serving() as receiver:
        await calls.end("t1", receiver.url)
        await calls.settled()
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


async def test_a_receiver_that_is_gone_is_called_no_more(calls: Calling) -> None:
    async with Receiver(answers=[410]).serving() as receiver:
        await calls.end("t1", receiver.url)
        await calls.settled()
    assert len(receiver.ids) == 1


async def test_after_a_day_a_call_is_given_up(calls: Calling) -> None:
    async with Receiver(answers=[500]).serving() as receiver:
        calls.parts.clock.ahead_s = retries.GIVEN_UP_AFTER_S + 1
        with capture_logs() as logs:
            # The signature is of tomorrow, which a receiver refuses.
            await calls.end("t1", receiver.url)
            await calls.settled()
    [line] = [line for line in logs if line["event"] == "callback.given_up"]
    assert line["task"] == "deployments/add/tasks/t1"


async def test_receivers_that_never_answer_hold_up_nobody(
    parts: Leading, secret_file: Path
) -> None:
    async with AsyncExitStack() as stack:
        # None of the calls that are not answered ends while this test runs.
        calls = await stack.enter_async_context(calling(parts, secret_file, LOOPBACK, 120.0))
        never = [Receiver(answers=[None] * 99) for _ in range(5)]
        for receiver in never:
            await stack.enter_async_context(receiver.serving())
        healthy = await stack.enter_async_context(Receiver().serving())
        for number in range(50):
            await calls.end(f"n{number}", never[number % 5].url)
        for number in range(50):
            await calls.end(f"h{number}", healthy.url)
        await eventually(lambda: len(healthy.ids) == 50)
        assert all(len(receiver.ids) <= 2 for receiver in never)

        async def settled() -> bool:
            return await calls.ordered() == 50

        await eventually(settled)


async def test_a_redirect_is_not_followed(calls: Calling) -> None:
    async with Receiver().serving() as elsewhere:
        async with Receiver(answers=[307], location=elsewhere.url).serving() as receiver:
            failures = await _failure(calls, receiver.url)
    assert failures == ["the receiver answered 307"]
    assert elsewhere.ids == []


async def _failure(calls: Calling, url: str) -> list[str]:
    """What is said of the first attempt of a call."""
    with capture_logs() as logs:
        await calls.end("t1", url)
        await eventually(lambda: any(line["event"] == "callback.failed" for line in logs))
    assert await calls.ordered() == 1
    return [line["reason"] for line in logs if line["event"] == "callback.failed"][:1]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"]
)
async def test_an_address_that_is_not_public_is_never_connected_to(
    parts: Leading, secret_file: Path, host: str
) -> None:
    async with calling(parts, secret_file, "") as calls, Receiver().serving() as receiver:
        port = receiver.url.split(":")[2]
        [reason] = await _failure(calls, f"http://{host}:{port}")
    refused = host == "2130706433" and "its address is not valid"
    assert (refused or "callback_allowed_networks does not allow it") in reason
    assert receiver.ids == []


async def test_a_name_is_looked_at_where_the_connection_is_made(
    parts: Leading, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that first says a public address and then another."""
    said = ["192.0.2.1", "127.0.0.1"]
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: object, **more: object) -> object:
        if host != "rebinding.example.com":
            return real(host, port, *rest, **more)
        address = said.pop(0) if len(said) > 1 else said[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    # The public address is nobody's, and may be silent.
    ours = calling(parts, secret_file, "192.0.2.0/24", timeout_s=1.0)
    async with ours as calls, Receiver().serving() as taker:
        port = taker.url.split(":")[2].partition("/")[0]
        with capture_logs() as logs:
            await calls.end("t1", f"http://rebinding.example.com:{port}/done")
            await eventually(
                lambda: any("loopback" in str(line.get("reason")) for line in logs), timeout_s=60
            )
    assert taker.ids == []


async def test_without_a_secret_calls_wait_and_are_made_once_there_is_one(
    parts: Leading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.autoscaler.callbacks.dispatcher.SECRET_AGE_S", 0.1)
    file = tmp_path / "later"
    with capture_logs() as logs:
        async with calling(parts, file, LOOPBACK) as calls, Receiver().serving() as receiver:
            await calls.end("t1", receiver.url)
            await eventually(lambda: [line for line in logs if line["event"] == _NO_SECRET])
            assert receiver.ids == []
            file.write_text(SECRET)
            await calls.settled()
    assert len(receiver.ids) == 1
    [line] = [line for line in logs if line["event"] == _NO_SECRET]
    assert line["waiting"] == 1


_NO_SECRET = "callback.no_secret"


async def test_orders_that_nobody_takes_make_room_so_that_tasks_still_end(parts: Leading) -> None:
    js = parts.link.jetstream
    config = (await js.stream_info(streams.CALLBACKS)).config
    config.max_bytes = 100_000
    await js.update_stream(config)
    with capture_logs() as logs:
        ends = Calling(parts, asyncio.current_task())

        async def fill() -> None:
            for number in range(1000):
                await ends.end(f"t{number}", "https://example.com/")

        with pytest.raises(StreamFullError):
            await fill()
        full = await ends.ordered()
        async with calling(parts, None, "") as calls:
            await eventually(lambda: [line for line in logs if line["event"] == "callback.dropped"])
            await calls.end("next", "https://example.com/")
    [line] = [line for line in logs if line["event"] == "callback.dropped"]
    assert line["count"] == full - int(full * 0.8)
    found = await parts.ledger.reader.read(streams.CALLBACKS, subjects.CALLBACKS, 1, 1000)
    kept = [message.subject.rpartition(".")[2] for message in found]
    assert kept[-2:] == [f"t{full - 1}", "next"], "the oldest go"


async def test_the_next_leader_makes_the_calls_and_the_former_none(
    tmp_path: Path, secret_file: Path
) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(AsyncExitStack())
            leader = await first.enter_async_context(leading(server.url))
            former = await first.enter_async_context(calling(leader, secret_file, LOOPBACK))
            other = await stack.enter_async_context(leading(server.url, must_lead=False))
            standby = await stack.enter_async_context(calling(other, secret_file, LOOPBACK))
            receiver = await stack.enter_async_context(Receiver().serving())
            await former.end("t1", receiver.url)
            await former.settled()
            await first.aclose()
            await standby.end("t2", receiver.url)
            await standby.settled()
            await standby.end("t3", receiver.url)
            await standby.settled()
    assert len(receiver.ids) == len(set(receiver.ids)) == 3


async def test_calls_go_on_after_a_restart_of_nats_server(
    tmp_path: Path, secret_file: Path
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path / "nats"))
        parts = await stack.enter_async_context(leading(server.url))
        calls = await stack.enter_async_context(calling(parts, secret_file, LOOPBACK))
        receiver = await stack.enter_async_context(Receiver().serving())
        await calls.end("t1", receiver.url)
        await calls.settled()
        connections = parts.link.connections
        await asyncio.to_thread(server.restart)
        await eventually(lambda: parts.link.connected and parts.link.connections > connections)
        await calls.end("t2", receiver.url)
        await calls.settled()
    assert len(receiver.ids) == 2


async def test_what_is_under_way_when_the_leader_stops_is_made_by_the_next(
    parts: Leading, secret_file: Path
) -> None:
    async with Receiver(answers=[None]).serving() as receiver:
        async with calling(parts, secret_file, LOOPBACK) as first:
            await first.end("t1", receiver.url)
            await eventually(lambda: len(receiver.ids) == 1)
        async with calling(parts, secret_file, LOOPBACK) as second:
            await second.settled()
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


async def test_an_autoscaler_ends_what_has_expired_and_calls_back(
    tmp_path: Path, secret_file: Path
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path / "nats"))
        receiver = await stack.enter_async_context(Receiver().serving())
        link = await stack.enter_async_context(linked(server.url))
        await streams.ensure(link.jetstream)
        task = Task(name=task_name("add", "t1"), priority=Task.PRIORITY_LOW)
        task.callback_url = receiver.url
        task.result_ttl.FromSeconds(60)
        task.expire_time.FromSeconds(1)
        waiting = TaskEnvelope(task_id="t1", deployment="add", task=task).SerializeToString()
        where = subjects.task("add", Task.PRIORITY_LOW, "t1", "", 1)
        await link.jetstream.publish(where, waiting)
        mesh = ControlPlane(server, tmp_path, stack)
        await mesh.start()
        settings = {"callback_secret_file": secret_file, "callback_allowed_networks": LOOPBACK}
        await stack.enter_async_context(mesh.autoscaling(**settings))
        await eventually(lambda: receiver.messages)
        [message] = receiver.messages
    assert message["type"] == "task.expired"
    assert message["data"]["error"].startswith("not ended within its ttl")


async def test_nothing_of_an_address_but_its_host_is_logged(calls: Calling) -> None:
    async with Receiver(answers=[500]).serving() as receiver:
        with capture_logs() as logs:
            await calls.end("t1", receiver.url + "?token=hush")
            await eventually(lambda: [line for line in logs if line["event"] == "callback.failed"])
    assert "hush" not in json.dumps(logs, default=str)
