"""The relay takes what Tritons send of the calls they were sent, and cannot be overrun."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.node_agent.traces import trace_relay
from services.node_agent.traces.recent_calls import RecentCalls
from services.node_agent.traces.trace_relay import TraceRelay
from services.runtime import ports
from services.runtime.clock import SystemClock
from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver
from tests.unit.node_agent.test_triton_spans import CALL, TRACE, sent


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver, receiver.told_by("node_agent"):
        yield receiver


@pytest.fixture
def calls() -> RecentCalls:
    calls = RecentCalls()
    calls.note(TRACE, "echo-1", "echo")
    return calls


@pytest.fixture
async def relay(
    receiver: OtlpReceiver, calls: RecentCalls, tmp_path: Path
) -> AsyncIterator[TraceRelay]:
    relay = TraceRelay("node-1", calls, SystemClock())
    await relay.open("127.0.0.1:0", tmp_path / "port")
    yield relay
    await relay.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def post(http: aiohttp.ClientSession, relay: TraceRelay, **what: Any) -> int:
    async with http.post(relay.url, **what) as response:
        await response.read()
        return response.status


async def test_json_and_protobuf_go_on_as_spans_of_triton(
    relay: TraceRelay, receiver: OtlpReceiver, http: aiohttp.ClientSession
) -> None:
    assert await post(http, relay, json=sent()) == 200
    binary = ExportTraceServiceRequest()
    group = binary.resource_spans.add()
    group.resource.attributes.add(key="forebay.replica").value.string_value = "echo-1"
    span = group.scope_spans.add().spans.add(
        name="compute", start_time_unix_nano=5, end_time_unix_nano=7
    )
    span.trace_id, span.span_id = bytes.fromhex(TRACE), bytes.fromhex("34" * 8)
    span.parent_span_id = bytes.fromhex(CALL)
    headers = {"Content-Type": "application/x-protobuf"}
    assert await post(http, relay, data=binary.SerializeToString(), headers=headers) == 200
    names = {"triton InferRequest", "triton compute"}
    await eventually(lambda: set(receiver.trace(TRACE)) == names)
    assert {service for service, _ in receiver.spans} == {"triton"}
    assert receiver.trace(TRACE)["triton compute"][1].end_time_unix_nano == 7
    assert relay.dropped_count == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}', 400),
        (b" " * (trace_relay.MAX_BODY_BYTES + 1), 413),
    ],
)
async def test_what_is_no_trace_is_refused_and_counted(
    relay: TraceRelay, http: aiohttp.ClientSession, body: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    assert await post(http, relay, data=io.BytesIO(body), headers=headers) == status
    assert relay.dropped_count == 1


async def test_a_span_of_somebody_elses_trace_is_dropped_and_counted(
    relay: TraceRelay, receiver: OtlpReceiver, http: aiohttp.ClientSession
) -> None:
    assert await post(http, relay, json=sent(traceId="ef" * 16)) == 200
    assert await post(http, relay, json=sent()) == 200
    await eventually(lambda: receiver.spans)
    assert [span.trace_id.hex() for _, span in receiver.spans] == [TRACE]
    assert relay.dropped_count == 1


async def test_more_than_the_rate_is_refused_at_once(
    relay: TraceRelay, http: aiohttp.ClientSession
) -> None:
    body = b" " * trace_relay.MAX_BODY_BYTES
    headers = {"Content-Type": "application/json"}
    # What may come at once is 32 MiB, and 8 MiB a second more for as long as these take.
    statuses: list[int] = []

    async def is_refused() -> bool:
        several = (post(http, relay, data=io.BytesIO(body), headers=headers) for _ in range(4))
        statuses.extend(await asyncio.gather(*several))
        return 429 in statuses

    await eventually(is_refused, timeout_s=60)
    async with asyncio.timeout(30):
        await post(http, relay, json=sent())


async def test_the_next_agent_listens_where_the_last_one_did(
    relay: TraceRelay, calls: RecentCalls, tmp_path: Path
) -> None:
    url = relay.url
    await relay.close()
    after = TraceRelay("node-1", calls, SystemClock())
    await after.open("127.0.0.1:0", tmp_path / "port")
    try:
        assert after.url == url
    finally:
        await after.close()


async def test_where_another_listens_a_free_port_is_taken_or_the_setting_is_named(
    relay: TraceRelay, calls: RecentCalls, tmp_path: Path
) -> None:
    other = TraceRelay("node-2", calls, SystemClock())
    await other.open("127.0.0.1:0", tmp_path / "port")
    try:
        assert other.url != relay.url
    finally:
        await other.close()
    taken = relay.url.split("/")[2]
    with pytest.raises(ports.AddressError, match=f"trace_relay_listen = {taken}"):
        await TraceRelay("node-3", calls, SystemClock()).open(taken, tmp_path / "third")


async def test_a_model_that_opens_all_it_can_costs_a_bounded_number_of_connections(
    relay: TraceRelay, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_relay, "MAX_CONNECTIONS", 3)
    port = int(relay.url.split(":")[2].partition("/")[0])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    for _, one in held:
        one.close()

    async def taken() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return await post(http, relay, json=sent()) == 200
        return False

    await eventually(taken)


async def test_a_body_that_does_not_come_is_not_waited_for(
    relay: TraceRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_relay, "READ_S", 0.2)
    port = int(relay.url.split(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    async with asyncio.timeout(30):
        assert b"408" in await reader.readline()
    writer.close()
