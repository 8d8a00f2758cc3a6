"""Clients that break the protocol, or keep to it in order to cost as much as they can."""

import gc
import sys
import time

import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.server import replies
from services.wire.http2.server.call_streams import MAX_FRAME_BYTES, CallStreams
from tests.support.http2_frames import (
    BLOCK,
    MESSAGE_LIMIT,
    METADATA_LIMIT,
    REQUEST,
    FrameClient,
    SilentClient,
    call,
    data,
    frame,
    headers,
    message,
    numbers,
)

GOOD = replies.trailers(0, "", ())


def code_of(*said: bytes, client: SilentClient | None = None) -> int:
    """How the connection ends when something is said on it."""
    client = client or FrameClient()
    with pytest.raises(h2.ProtocolError) as caught:
        client.say(*said)
    client.server.break_off(caught.value)
    assert client.hear()[-1][0] == h2.GOAWAY
    client.server.lose()
    assert not client.server.open
    return caught.value.code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (data(0, b"x"), h2.PROTOCOL_ERROR),
        (data(5, b"x"), h2.PROTOCOL_ERROR),
        (data(2, b"x"), h2.PROTOCOL_ERROR),
        (headers(0), h2.PROTOCOL_ERROR),
        (headers(2), h2.PROTOCOL_ERROR),
        (call(9) + call(7), h2.PROTOCOL_ERROR),
        (call(9) + h2.rst_stream(9, 8) + call(9), h2.PROTOCOL_ERROR),
        (call(1) + data(1, b"x"), h2.STREAM_CLOSED),
        (call(1) + headers(1, b"", h2.END_STREAM), h2.PROTOCOL_ERROR),
        (headers(1) + headers(1, b""), h2.PROTOCOL_ERROR),
        (h2.rst_stream(5, 8), h2.PROTOCOL_ERROR),
        (h2.rst_stream(0, 8), h2.PROTOCOL_ERROR),
        (h2.window_update(5, 1), h2.PROTOCOL_ERROR),
        (frame(h2.RST_STREAM, 0, 1, b"abc"), h2.FRAME_SIZE_ERROR),
        (frame(h2.WINDOW_UPDATE, 0, 0, b"abcde"), h2.FRAME_SIZE_ERROR),
        (frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4) + BLOCK), h2.PROTOCOL_ERROR),
        (frame(h2.CONTINUATION, h2.END_HEADERS, 1, BLOCK), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, 0, 1, BLOCK) + headers(3), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, 0, 1, BLOCK) + frame(h2.PING, 0, 0, bytes(8)), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, 0, 1, BLOCK) + frame(77, 0, 0), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, 0, 1) + frame(h2.CONTINUATION, 4, 3, BLOCK), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b"\xff" + BLOCK), h2.PROTOCOL_ERROR),
        (frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1), h2.PROTOCOL_ERROR),
        (headers(1) + frame(h2.DATA, h2.PADDED, 1, b"\x02a"), h2.PROTOCOL_ERROR),
        (headers(1, b"\x80"), h2.COMPRESSION_ERROR),
        (frame(h2.SETTINGS, 0, 1), h2.PROTOCOL_ERROR),
        (frame(h2.SETTINGS, 0, 0, bytes(5)), h2.FRAME_SIZE_ERROR),
        (frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), h2.FRAME_SIZE_ERROR),
        (frame(h2.PING, 0, 1, bytes(8)), h2.PROTOCOL_ERROR),
        (frame(h2.PING, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
        (frame(h2.PRIORITY, 0, 1, bytes(4)), h2.FRAME_SIZE_ERROR),
        (h2.frame_header(MAX_FRAME_BYTES + 1, h2.DATA, 0, 1), h2.FRAME_SIZE_ERROR),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(said: bytes, code: int) -> None:
    assert code_of(said) == code


@pytest.mark.parametrize(
    "first",
    [call(1), h2.SETTINGS_ACK, h2.ping(bytes(8)), h2.window_update(0, 1), frame(77, 0, 0)],
    ids=["call", "ack", "ping", "window", "unknown"],
)
def test_a_connection_begins_with_settings(first: bytes) -> None:
    assert code_of(h2.PREFACE + first, client=SilentClient()) == h2.PROTOCOL_ERROR


def test_what_is_of_no_interest_is_ignored() -> None:
    client = FrameClient()
    client.say(headers(1), h2.rst_stream(1, h2.CANCEL))
    made = client.say(
        data(1, b"late"),
        h2.rst_stream(1, h2.CANCEL),
        h2.window_update(1, 5),
        headers(1, b"", h2.END_STREAM),
        frame(h2.PRIORITY, 0, 7, bytes(5)),
        frame(77, 0xFF, 3, b"unknown"),
        h2.goaway(h2.NO_ERROR),
    )
    assert made == []
    assert client.hear() == []


def left_behind(client: FrameClient) -> int:
    """How many things a connection holds in what may grow."""
    server = client.server
    held = [server.open, server._happened, server._uploads._waiting, server._reader._parts]
    sending = server.sending
    held += [sending._waiting, sending._stalled, sending._emptied, server._preface]
    return sum(map(len, held)) + len(server._headers or ()) + server._uploads._taken


def test_calls_that_are_reset_at_once_leave_nothing_behind() -> None:
    client = FrameClient()
    large = b"\0" + MESSAGE_LIMIT.to_bytes(4, "big")
    for stream in range(1, 40_000, 2):
        parts = [headers(stream), data(stream, large), h2.rst_stream(stream, h2.CANCEL)]
        assert client.say(*parts) == [("BEGUN", stream), ("GONE", stream)]
        client.calls.clear()
        client.events.clear()
    # What allowed the large messages; the carrier takes it away with each turn.
    assert len(client.hear()) == 20_000
    assert left_behind(client) == 0


def test_answers_of_calls_that_are_reset_leave_nothing_behind() -> None:
    client = FrameClient(initial_window_size=0)
    for stream in range(1, 2001, 2):
        client.say(call(stream))
        client.server.sending.reply(client.calls[stream], bytes(1000), GOOD)
    assert client.server.sending.kept_bytes == 1000 * 1005
    client.say(b"".join(h2.rst_stream(stream, 8) for stream in range(1, 2001, 2)))
    assert client.server.sending.kept_bytes == 0
    assert left_behind(client) == 0


def test_refused_calls_leave_nothing_behind() -> None:
    client = FrameClient()
    other = h2.literal_fields([*REQUEST[:3], (b"content-type", b"text/html")])
    for stream in range(1, 3001, 6):
        malformed, too_large = BLOCK * 2, BLOCK + b"\x8f" * 500
        made = client.say(
            headers(stream, malformed), headers(stream + 2, other), headers(stream + 4, too_large)
        )
        assert made == []
    assert left_behind(client) == 0


def test_a_second_request_on_a_stream_ends_it() -> None:
    client = FrameClient()
    assert client.say(headers(1), headers(1)) == [("BEGUN", 1), ("GONE", 1)]
    assert numbers(client.hear(), h2.RST_STREAM) == [(1, h2.PROTOCOL_ERROR)]


FLOODS = {
    "empty DATA": (headers(1), data(1, b"")),
    "padded empty DATA": (headers(1), frame(h2.DATA, h2.PADDED, 1, b"\0")),
    "DATA of a stream that is gone": (headers(1) + h2.rst_stream(1, 8), data(1, b"x")),
    "PING": (b"", h2.ping(b"12345678")),
    "answers to no PING": (b"", h2.ping(b"12345678", h2.ACK)),
    "SETTINGS": (b"", h2.settings({})),
    "acknowledgements": (b"", h2.SETTINGS_ACK),
    "PRIORITY": (b"", frame(h2.PRIORITY, 0, 1, bytes(5))),
    "unknown": (b"", frame(77, 0, 0, b"x")),
    "RST_STREAM": (headers(1), h2.rst_stream(1, 8)),
    "WINDOW_UPDATE of the connection": (b"", h2.window_update(0, 1)),
    "WINDOW_UPDATE of a stream": (headers(1), h2.window_update(1, 1)),
    "GOAWAY": (b"", h2.goaway(0)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_leaves_nothing_behind_but_answers(name: str) -> None:
    before, one = FLOODS[name]
    client = FrameClient()
    client.say(before)
    client.say(one)
    client.hear()
    known = left_behind(client)
    for _ in range(20):
        client.say(one * 1000)
        # No more than came, so that a carrier that stops reading bounds it.
        assert sum(map(len, client.server.sending.frames)) <= 2 * 1000 * len(one)
        client.hear()
    assert left_behind(client) == known


@pytest.mark.parametrize("part", [b"", b"\x20", b"\0\0\0"])
def test_a_header_block_without_end_is_given_up(part: bytes) -> None:
    client = FrameClient()
    client.say(frame(h2.HEADERS, 0, 1))
    one, sent = frame(h2.CONTINUATION, 0, 1, part), 0
    code = h2.NO_ERROR
    while code == h2.NO_ERROR and sent < 10 * METADATA_LIMIT:
        try:
            client.say(one)
        except h2.ProtocolError as error:
            code = error.code
        sent += len(one)
    assert code == h2.ENHANCE_YOUR_CALM
    assert sent <= 4 * METADATA_LIMIT


def test_a_preface_is_not_gathered_for_ever() -> None:
    server = CallStreams(MESSAGE_LIMIT, METADATA_LIMIT)
    for index in range(len(h2.PREFACE)):
        server.receive(h2.PREFACE[index : index + 1])
    assert server._preface == b""
    with pytest.raises(h2.ProtocolError):
        CallStreams(MESSAGE_LIMIT, METADATA_LIMIT).receive(b"P" * 100_000)


def cpu_s(client: FrameClient, said: bytes) -> float:
    """Processor time that it takes to hear something, the best of three."""
    took = []
    for _ in range(3):
        began = time.process_time()
        client.say(said)
        took.append(time.process_time() - began)
        client.server.sending.frames.clear()
    return min(took)


def crowded(count: int, **settings: int) -> FrameClient:
    """A client with so many calls that wait for everything there is to wait for."""
    client = FrameClient(**settings)
    large = b"\0" + MESSAGE_LIMIT.to_bytes(4, "big") + b"x"
    client.say(b"".join(headers(s) + data(s, large) for s in range(1, 2 * count, 2)))
    for stream in client.calls.values():
        client.server.sending.message(stream, bytes(70_000))
    client.hear()
    return client


CROWDED_FLOODS = {
    "DATA of one that waits for its turn": data(1999, b""),
    "WINDOW_UPDATE of the connection": h2.window_update(0, 1),
    "WINDOW_UPDATE of a stream": h2.window_update(1999, 1),
    "SETTINGS": h2.settings({h2.INITIAL_WINDOW_SIZE: 1}) + h2.settings({h2.INITIAL_WINDOW_SIZE: 0}),
    "many in one SETTINGS": frame(h2.SETTINGS, 0, 0, b"\0\4\0\0\0\1\0\4\0\0\0\0" * 50),
}


@pytest.mark.parametrize("name", CROWDED_FLOODS)
def test_a_frame_costs_the_same_with_nine_times_the_calls(name: str) -> None:
    said = CROWDED_FLOODS[name] * 500
    few = cpu_s(crowded(1000, initial_window_size=0), said)
    many = cpu_s(crowded(9000, initial_window_size=0), said)
    # Each look at all calls costs some 10 ms; one per piece that arrives is allowed.
    assert many < 4 * few + 0.1


def test_a_message_in_single_bytes_takes_little_more_room_than_its_bytes() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, b"\0" + (60_000).to_bytes(4, "big")))
    client.say(data(1, b"x") * 50_000)
    gc.collect()
    parts = client.calls[1].reader._parts
    assert sum(map(sys.getsizeof, parts)) + sys.getsizeof(parts) < 60_000


def test_messages_of_no_bytes_are_taken_in_no_time() -> None:
    client = FrameClient()
    client.say(headers(1))
    began = time.process_time()
    client.say(data(1, message(b"") * 13_000))
    assert time.process_time() - began < 0.1
    assert len(client.calls[1].reader.messages) == 13_000


def test_a_window_update_may_have_its_reserved_bit_set() -> None:
    client = FrameClient()
    client.say(headers(1), frame(h2.WINDOW_UPDATE, 0, 1, b"\x80\0\0\1"))
    assert client.calls[1].credit == 1
    assert numbers(client.hear(), h2.RST_STREAM) == []
