"""Unary calls over one HTTP/2 connection, against a server made of frames."""

from urllib.parse import quote

import hpack
import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.client import replies
from services.wire.http2.client.unary_calls import Call, UnaryCalls

LIMIT = 1_000_000
METADATA_LIMIT = 50_000
HEADERS = h2.literal_fields([(b":path", b"/a/B")])
OK = [(b"grpc-status", b"0")]

Frame = tuple[int, int, int, bytes]


def connected(**settings: int) -> UnaryCalls[str]:
    """A connection whose server has sent its settings."""
    calls: UnaryCalls[str] = UnaryCalls(LIMIT, METADATA_LIMIT)
    values = {getattr(h2, name.upper()): value for name, value in settings.items()}
    assert calls.receive(h2.settings(values)) == []
    sent(calls)
    return calls


def begin(calls: UnaryCalls[str], body: bytes = b"request") -> Call[str]:
    call = Call(HEADERS, body, "waiter")
    calls.begin(call)
    return call


def sent(calls: UnaryCalls[str]) -> list[Frame]:
    """The frames that wait to be sent, which are taken out."""
    data, calls.outgoing = b"".join(calls.outgoing), []
    return h2.FrameReader(2**24).feed(data.removeprefix(h2.PREFACE))


def bodies(frames: list[Frame]) -> dict[int, bytes]:
    """What was sent of each stream's body."""
    found: dict[int, bytes] = {}
    for kind, _, stream, payload in frames:
        if kind == h2.DATA:
            found[stream] = found.get(stream, b"") + payload
    return found


def code_of(call: Call[str]) -> tuple[int, bool]:
    assert call.failure is not None
    return call.failure.code, call.failure.untouched


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return h2.frame_header(len(payload), kind, flags, stream) + payload


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def begun(stream: int, http_status: int = 200) -> bytes:
    block = hpack.Encoder().encode([(b":status", str(http_status).encode())])
    return frame(h2.HEADERS, h2.END_HEADERS, stream, block)


def trailers(stream: int, fields: list[tuple[bytes, bytes]]) -> bytes:
    flags = h2.END_HEADERS | h2.END_STREAM
    return frame(h2.HEADERS, flags, stream, h2.literal_fields(fields))


def answer(stream: int, body: bytes) -> bytes:
    data = frame(h2.DATA, 0, stream, message(body))
    return begun(stream) + data + trailers(stream, OK)


def test_a_call_is_headers_and_one_message() -> None:
    calls = connected()
    begin(calls, b"request")
    assert sent(calls) == [
        (h2.HEADERS, h2.END_HEADERS, 1, HEADERS),
        (h2.DATA, h2.END_STREAM, 1, message(b"request")),
    ]


def test_tells_the_server_to_use_no_table_and_takes_all_it_sends() -> None:
    calls: UnaryCalls[str] = UnaryCalls(LIMIT, METADATA_LIMIT)
    assert b"".join(calls.outgoing).startswith(h2.PREFACE)
    settings, window = sent(calls)
    assert dict(h2.read_settings(settings[3]))[h2.HEADER_TABLE_SIZE] == 0
    assert h2.read_number(window[3], "") + h2.DEFAULT_WINDOW_BYTES == h2.MAX_WINDOW_BYTES


def test_nothing_is_called_before_the_server_has_sent_its_settings() -> None:
    calls: UnaryCalls[str] = UnaryCalls(LIMIT, METADATA_LIMIT)
    sent(calls)
    begin(calls)
    assert sent(calls) == []
    calls.receive(h2.settings({}))
    assert [kind for kind, *_ in sent(calls)] == [h2.SETTINGS, h2.HEADERS, h2.DATA]


@pytest.mark.parametrize("body", [b"", b"reply", b"x" * 3000])
def test_a_reply_is_the_same_wherever_its_bytes_are_cut(body: bytes) -> None:
    data = answer(1, body)
    for cut in range(len(data) + 1):
        calls = connected()
        call = begin(calls)
        ended = calls.receive(data[:cut]) + calls.receive(data[cut:])
        assert ended == [call]
        assert (call.reply, call.failure, calls.count) == (body, None, 0)


def test_a_message_may_span_frames_at_every_byte() -> None:
    whole = message(b"reply")
    for cut in range(len(whole) + 1):
        calls = connected()
        call = begin(calls)
        parts = frame(h2.DATA, 0, 1, whole[:cut]) + frame(h2.DATA, 0, 1, whole[cut:])
        assert calls.receive(begun(1) + parts + trailers(1, OK)) == [call]
        assert call.reply == b"reply"


def test_padded_frames_and_split_header_blocks_are_taken() -> None:
    calls = connected()
    call = begin(calls)
    data = frame(h2.DATA, h2.PADDED, 1, b"\x03" + message(b"reply") + bytes(3))
    block = h2.literal_fields(OK)
    split = frame(h2.HEADERS, h2.END_STREAM, 1, block[:3]) + frame(h2.CONTINUATION, 0, 1, b"")
    split += frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[3:])
    assert calls.receive(begun(1) + data + split) == [call]
    assert call.reply == b"reply"


def test_replies_come_in_any_order() -> None:
    calls = connected()
    first, second = begin(calls), begin(calls)
    assert calls.receive(answer(3, b"2") + answer(1, b"1")) == [second, first]
    assert (first.reply, second.reply) == (b"1", b"2")


@pytest.mark.parametrize("text", ["", "plain", "50 % of ü\nand more", "a" * 5000])
def test_an_error_carries_its_status_and_its_text(text: str) -> None:
    calls = connected()
    call = begin(calls)
    fields = [(b"grpc-status", b"3"), (b"grpc-message", quote(text).encode())]
    assert calls.receive(trailers(1, [(b":status", b"200"), *fields])) == [call]
    assert call.failure == replies.Failure(3, text)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (trailers(1, [(b":status", b"200")]), replies.UNKNOWN),
        (trailers(1, [(b":status", b"503")]), replies.UNAVAILABLE),
        (begun(1, 404) + trailers(1, []), replies.UNIMPLEMENTED),
        (trailers(1, OK), replies.INTERNAL),
        (frame(h2.DATA, 0, 1, b"\1\0\0\0\1x") + trailers(1, OK), replies.INTERNAL),
        (frame(h2.DATA, 0, 1, message(b"a") + message(b"b")) + trailers(1, OK), replies.INTERNAL),
        (frame(h2.DATA, 0, 1, message(b"abc")[:-1]) + trailers(1, OK), replies.INTERNAL),
        (frame(h2.DATA, h2.END_STREAM, 1, message(b"a")), replies.INTERNAL),
        (h2.rst_stream(1, h2.CANCEL), replies.CANCELLED),
        (h2.rst_stream(1, h2.ENHANCE_YOUR_CALM), replies.RESOURCE_EXHAUSTED),
        (h2.rst_stream(1, h2.NO_ERROR), replies.INTERNAL),
    ],
)
def test_a_reply_that_is_none_fails_its_call_and_no_other(data: bytes, code: int) -> None:
    calls = connected()
    call, other = begin(calls), begin(calls)
    assert calls.receive(data) == [call]
    assert code_of(call) == (code, False)
    assert calls.receive(answer(3, b"fine")) == [other]


def test_a_refused_call_may_be_called_again() -> None:
    calls = connected()
    call = begin(calls)
    calls.receive(h2.rst_stream(1, h2.REFUSED_STREAM))
    assert code_of(call) == (replies.UNAVAILABLE, True)


def test_a_reply_over_the_limit_is_broken_off_and_named() -> None:
    calls = connected()
    call = begin(calls)
    whole = message(bytes(LIMIT + 1))
    half = len(whole) // 2
    assert calls.receive(begun(1) + frame(h2.DATA, 0, 1, whole[:half])) == []
    assert calls.receive(frame(h2.DATA, 0, 1, whole[half:])) == [call]
    assert code_of(call) == (replies.RESOURCE_EXHAUSTED, False)
    assert f"{LIMIT + 1} bytes" in str(call.failure)
    assert sent(calls)[-1] == (h2.RST_STREAM, 0, 1, b"\0\0\0\x08")
    assert calls.receive(trailers(1, OK)) == []


def test_metadata_over_the_limit_fails_its_call_and_no_other() -> None:
    calls = connected()
    call, other = begin(calls), begin(calls)
    fields = [(b"grpc-status", b"0"), (b"grpc-message", b"m" * METADATA_LIMIT)]
    assert calls.receive(trailers(1, fields)) == [call]
    assert code_of(call) == (replies.RESOURCE_EXHAUSTED, False)
    assert calls.receive(answer(3, b"fine")) == [other]


def test_a_body_waits_for_the_streams_window() -> None:
    calls = connected(initial_window_size=10)
    begin(calls, b"x" * 20)
    assert bodies(sent(calls)) == {1: message(b"x" * 20)[:10]}
    calls.receive(h2.window_update(1, 3))
    [(kind, flags, _, payload)] = sent(calls)
    assert (kind, flags, len(payload)) == (h2.DATA, 0, 3)
    calls.receive(h2.window_update(1, 1000))
    [(_, flags, _, payload)] = sent(calls)
    assert (flags, len(payload)) == (h2.END_STREAM, 12)


def test_bodies_wait_for_the_connections_window_each_in_its_turn() -> None:
    calls = connected(initial_window_size=10**6)
    first, second = begin(calls, b"1" * 60_000), begin(calls, b"2" * 60_000)
    frames = sent(calls)
    assert sum(len(payload) for kind, *_, payload in frames if kind == h2.DATA) == 65_535
    third = begin(calls, b"3")
    assert bodies(sent(calls)) == {}
    calls.receive(h2.window_update(0, 2**20))
    frames += sent(calls)
    found = bodies(frames)
    assert found == {1: message(first.body), 3: message(second.body), 5: message(third.body)}
    assert sum(flags for kind, flags, *_ in frames if kind == h2.DATA) == 3


def test_a_window_that_the_server_makes_smaller_may_be_below_nothing() -> None:
    calls = connected(initial_window_size=20)
    begin(calls, b"x" * 30)
    assert len(bodies(sent(calls))[1]) == 20
    calls.receive(h2.settings({h2.INITIAL_WINDOW_SIZE: 5}))
    calls.receive(h2.window_update(1, 15))
    assert bodies(sent(calls)) == {}
    calls.receive(h2.window_update(1, 1))
    assert len(bodies(sent(calls))[1]) == 1


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 6, 7])
def test_windows_may_be_as_small_as_a_byte(window: int) -> None:
    calls = connected(initial_window_size=window)
    call = begin(calls, b"body")
    frames = sent(calls)
    while call.unsent_bytes:
        calls.receive(h2.window_update(1, window))
        frames += sent(calls)
    assert bodies(frames) == {1: message(b"body")}


def test_frames_are_no_larger_than_the_server_takes() -> None:
    calls = connected(initial_window_size=2**30)
    calls.receive(h2.window_update(0, 2**30))
    begin(calls, bytes(100_000))
    assert max(len(frame[3]) for frame in sent(calls)) == h2.DEFAULT_FRAME_BYTES
    calls.receive(h2.settings({h2.MAX_FRAME_SIZE: 2**20}))
    begin(calls, bytes(100_000))
    assert max(len(frame[3]) for frame in sent(calls)) == 100_005


def test_no_more_streams_are_open_than_the_server_takes() -> None:
    calls = connected(max_concurrent_streams=2)
    made = [begin(calls) for _ in range(4)]
    assert [call.stream for call in made] == [1, 3, 0, 0]
    calls.receive(answer(1, b""))
    assert [call.stream for call in made] == [1, 3, 5, 0]
    assert calls.cancel(made[1]) == []
    assert [call.stream for call in made] == [1, 3, 5, 7]
    assert calls.count == 2


def test_a_cancelled_call_is_cancelled_at_the_server_and_its_reply_dropped() -> None:
    calls = connected(initial_window_size=10)
    call = begin(calls, b"x" * 20)
    sent(calls)
    assert calls.cancel(call) == []
    assert sent(calls) == [(h2.RST_STREAM, 0, 1, b"\0\0\0\x08")]
    assert calls.receive(h2.window_update(1, 100) + answer(1, b"late")) == []
    assert calls.cancel(call) == []
    assert (sent(calls), calls.count) == ([], 0)


def test_a_call_that_waits_is_cancelled_without_a_word() -> None:
    calls = connected(max_concurrent_streams=0)
    call = begin(calls)
    assert calls.cancel(call) == []
    assert (sent(calls), calls.count) == ([], 0)


def test_a_reply_before_the_end_of_the_request_ends_both() -> None:
    calls = connected(initial_window_size=10)
    call = begin(calls, b"x" * 20)
    sent(calls)
    assert calls.receive(trailers(1, [(b"grpc-status", b"3")])) == [call]
    assert sent(calls) == [(h2.RST_STREAM, 0, 1, b"\0\0\0\x08")]
    calls.receive(h2.window_update(0, 100))
    assert sent(calls) == []


def test_a_server_that_goes_away_finishes_what_it_has_taken() -> None:
    calls = connected()
    taken, not_taken = begin(calls), begin(calls)
    goaway = frame(h2.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4) + b"bye")
    assert calls.receive(goaway) == [not_taken]
    assert code_of(not_taken) == (replies.UNAVAILABLE, True)
    assert "bye" in str(not_taken.failure)
    assert not calls.accepting
    assert calls.receive(answer(1, b"reply")) == [taken]
    assert (taken.reply, calls.count) == (b"reply", 0)


def test_a_lost_connection_fails_all_calls_as_unavailable() -> None:
    calls = connected(max_concurrent_streams=1)
    made = [begin(calls), begin(calls)]
    assert calls.lose("gone") == made
    assert [call.failure for call in made] == [replies.Failure(replies.UNAVAILABLE, "gone")] * 2
    assert not calls.accepting


def test_the_last_stream_is_used_and_what_waits_then_goes_elsewhere() -> None:
    calls = connected(max_concurrent_streams=1)
    calls._next_stream = h2.LAST_STREAM
    last, waiting = begin(calls), begin(calls)
    assert (last.stream, calls.accepting) == (2**31 - 1, False)
    assert calls.receive(answer(last.stream, b"reply")) == [last, waiting]
    assert last.reply == b"reply"
    assert code_of(waiting) == (replies.UNAVAILABLE, True)


def test_pings_and_settings_are_confirmed() -> None:
    calls = connected()
    calls.receive(h2.ping(b"12345678") + h2.settings({}) + h2.ping(bytes(8), h2.ACK))
    assert sent(calls) == [
        (h2.PING, h2.ACK, 0, b"12345678"),
        (h2.SETTINGS, h2.ACK, 0, b""),
    ]


def test_the_connections_window_is_given_back() -> None:
    calls = connected()
    calls.cancel(begin(calls))
    data = frame(h2.DATA, 0, 1, bytes(2**20))
    for _ in range(2**10):
        calls.receive(data)
    assert sent(calls)[-1] == (h2.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "data",
    [
        frame(h2.DATA, 0, 0, b""),
        frame(h2.DATA, 0, 2, b""),
        frame(h2.HEADERS, h2.END_HEADERS, 5, b""),
        frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xbe"),
        trailers(1, [(b"grpc-status", b"good")]),
        frame(h2.HEADERS, 0, 1, b"") + h2.ping(bytes(8)),
        frame(h2.CONTINUATION, h2.END_HEADERS, 1, b""),
        frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 1, bytes(2**17)),
        frame(h2.SETTINGS, 0, 0, b"12345"),
        frame(h2.SETTINGS, h2.ACK, 0, bytes(6)),
        frame(h2.SETTINGS, 0, 1, b""),
        h2.settings({h2.INITIAL_WINDOW_SIZE: 2**31}),
        h2.settings({h2.MAX_FRAME_SIZE: 1}),
        frame(h2.PING, 0, 0, b"1"),
        frame(h2.GOAWAY, 0, 0, b"1"),
        frame(h2.RST_STREAM, 0, 1, b"1"),
        frame(h2.PUSH_PROMISE, 0, 1, bytes(4)),
        h2.window_update(0, 0),
        h2.window_update(0, 2**31 - 1),
        h2.window_update(1, 2**31 - 1),
        h2.frame_header(2**20 + 1, h2.DATA, 0, 1),
    ],
)
def test_a_server_that_breaks_the_protocol_is_left(data: bytes) -> None:
    calls = connected()
    call = begin(calls)
    with pytest.raises(h2.ProtocolError):
        calls.receive(data)
    assert calls.lose("broken") == [call]


def test_frames_of_unknown_types_are_ignored() -> None:
    calls = connected()
    call = begin(calls)
    unknown = frame(0x20, 0xFF, 1, b"?") + frame(0x20, 0xFF, 0, b"?")
    assert calls.receive(unknown + answer(1, b"")) == [call]
