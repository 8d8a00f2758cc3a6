"""Calls that a server hears, in whatever frames and pieces they come."""

import hpack
import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.server import replies
from services.wire.http2.server.call_streams import (
    INTERNAL,
    MAX_STREAMS,
    RESOURCE_EXHAUSTED,
    CallStreams,
)
from tests.support.http2_frames import (
    BLOCK,
    MESSAGE_LIMIT,
    METADATA_LIMIT,
    REQUEST,
    FrameClient,
    SilentClient,
    bodies,
    call,
    data,
    frame,
    headers,
    kinds,
    message,
    numbers,
)

GOOD = replies.trailers(0, "", ())


def status_of(client: FrameClient, stream: int) -> dict[bytes, bytes]:
    """The fields of the last header block on a stream, which must end it."""
    blocks = [
        (flags, payload)
        for kind, flags, where, payload in client.hear()
        if kind == h2.HEADERS and where == stream
    ]
    flags, block = blocks[-1]
    assert flags & h2.END_STREAM
    return {bytes(k): bytes(v) for k, v in hpack.Decoder().decode(block, raw=True)}


def test_a_unary_call_is_begun_and_heard_at_once() -> None:
    client = FrameClient()
    assert client.say(call(1, b"hello")) == [("BEGUN", 1), ("HEARD", 1)]
    assert client.calls[1].half_closed
    assert client.read(1) == b"hello"
    client.server.sending.reply(client.calls[1], b"answer", GOOD)
    sent = client.hear()
    assert kinds(sent) == [(h2.HEADERS, 1), (h2.DATA, 1), (h2.HEADERS, 1)]
    assert bodies(sent) == {1: message(b"answer")}
    assert sent[-1][1] == h2.END_HEADERS | h2.END_STREAM
    assert not client.server.open


CONVERSATION = b"".join(
    (
        h2.PREFACE,
        h2.settings({h2.INITIAL_WINDOW_SIZE: 100_000}),
        h2.SETTINGS_ACK,
        call(1, b"one"),
        frame(h2.HEADERS, 0, 3, BLOCK[:20]),
        frame(h2.CONTINUATION, 0, 3, BLOCK[20:21]),
        frame(h2.CONTINUATION, h2.END_HEADERS, 3, BLOCK[21:]),
        frame(h2.DATA, h2.PADDED, 3, b"\x04" + message(b"first")[:3] + bytes(4)),
        frame(h2.PING, 0, 0, b"12345678"),
        frame(h2.DATA, h2.PADDED | h2.END_STREAM, 3, b"\x00" + message(b"first")[3:]),
        frame(h2.HEADERS, 0x2C, 5, b"\x02\0\0\0\0\x10" + BLOCK + bytes(2)),
        data(5, message(b"") + message(b"two") + message(b"x" * 300)),
        frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 5, h2.literal_fields([(b"a", b"b")])),
        headers(7),
        h2.rst_stream(7, h2.CANCEL),
    )
)


def told(client: SilentClient) -> list[tuple[str, int]]:
    """The events; several of one call that say it was heard count once, as frames may be cut."""
    found: list[tuple[str, int]] = []
    for event in client.events:
        if event not in found:
            found.append(event)
    return found


def all_messages(client: SilentClient) -> dict[int, list[bytes]]:
    return {
        stream: [body for _, body in call.reader.messages] for stream, call in client.calls.items()
    }


def test_what_is_heard_is_the_same_wherever_the_bytes_are_cut() -> None:
    whole = SilentClient()
    whole.say(CONVERSATION)
    assert told(whole)[-2:] == [("BEGUN", 7), ("GONE", 7)]
    assert all_messages(whole) == {1: [b"one"], 3: [b"first"], 5: [b"", b"two", b"x" * 300], 7: []}
    sent = whole.hear()
    for cut in range(len(CONVERSATION) + 1):
        client = SilentClient()
        client.say(CONVERSATION[:cut])
        client.say(CONVERSATION[cut:])
        assert told(client) == told(whole)
        assert all_messages(client) == all_messages(whole)
        assert client.hear() == sent


def test_what_is_heard_is_the_same_byte_by_byte() -> None:
    whole, pieces = SilentClient(), SilentClient()
    whole.say(CONVERSATION)
    for index in range(len(CONVERSATION)):
        pieces.say(CONVERSATION[index : index + 1])
    assert told(pieces) == told(whole)
    assert all_messages(pieces) == all_messages(whole)


def test_many_calls_in_one_piece_are_told_in_their_order() -> None:
    client = FrameClient()
    made = client.say(b"".join(call(stream) for stream in range(1, 2001, 2)))
    assert made == [(name, s) for s in range(1, 2001, 2) for name in ("BEGUN", "HEARD")]


def test_a_call_may_end_with_its_header_block() -> None:
    client = FrameClient()
    assert client.say(headers(1, flags=h2.END_STREAM)) == [("BEGUN", 1), ("HEARD", 1)]
    assert client.calls[1].half_closed
    assert not client.calls[1].reader.messages


def test_an_empty_last_frame_ends_a_request() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(b"a")))
    assert not client.calls[1].half_closed
    assert client.say(data(1, b"", end=True)) == [("HEARD", 1)]
    assert client.calls[1].half_closed


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
def test_a_request_that_ends_midway_is_told_so(cut: int) -> None:
    client = FrameClient()
    made = client.say(headers(1), data(1, message(b"abc")[:cut], end=True))
    assert made == [("BEGUN", 1), ("GONE", 1)]
    fields = status_of(client, 1)
    assert fields[b"grpc-status"] == b"%d" % INTERNAL
    assert b"midway" in fields[b"grpc-message"]
    assert not client.server.open


def test_a_request_that_ends_midway_with_trailers_is_told_so() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(b"abc")[:6]))
    assert client.say(headers(1, b"", h2.END_STREAM)) == [("GONE", 1)]


def test_a_message_over_the_limit_is_refused_with_both_figures_and_the_rest_is_ignored() -> None:
    client = FrameClient()
    head = b"\0" + (MESSAGE_LIMIT + 1).to_bytes(4, "big")
    assert client.say(headers(1), data(1, head)) == [("BEGUN", 1), ("GONE", 1)]
    sent = client.hear()
    assert numbers(sent, h2.RST_STREAM) == [(1, h2.NO_ERROR)]
    fields = dict(hpack.Decoder().decode(sent[0][3], raw=True))
    assert fields[b"grpc-status"] == b"%d" % RESOURCE_EXHAUSTED
    assert b"1000001 bytes" in fields[b"grpc-message"]
    assert b"limit is 1000000 bytes" in fields[b"grpc-message"]
    assert client.say(data(1, bytes(16_000)), h2.rst_stream(1, 8), call(3)) == [
        ("BEGUN", 3),
        ("HEARD", 3),
    ]


def test_a_message_at_the_limit_is_taken() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, b"\0" + MESSAGE_LIMIT.to_bytes(4, "big")))
    assert 1 in client.server.open


def test_a_failed_request_gets_its_status_also_when_an_answer_was_kept() -> None:
    client = FrameClient(initial_window_size=0)
    client.say(headers(1), data(1, message(b"a")))
    client.server.sending.message(client.calls[1], b"kept")
    client.hear()
    assert client.say(data(1, b"\0", end=True)) == [("GONE", 1)]
    assert status_of(client, 1)[b"grpc-status"] == b"%d" % INTERNAL
    assert client.server.sending.kept_bytes == 0


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"GET"), *REQUEST[1:]],
        [*REQUEST[:3], (b"content-type", b"text/html")],
        [*REQUEST[:3], (b"content-type", b"application/grpc-web")],
        list(REQUEST[:3]),
    ],
    ids=["GET", "html", "grpc-web", "no type"],
)
@pytest.mark.parametrize("end", [0, h2.END_STREAM])
def test_a_request_that_is_not_grpc_gets_415_and_the_connection_goes_on(
    fields: list[tuple[bytes, bytes]], end: int
) -> None:
    client = FrameClient()
    assert client.say(headers(1, h2.literal_fields(fields), end)) == []
    sent = client.hear()
    assert dict(hpack.Decoder().decode(sent[0][3], raw=True))[b":status"] == b"415"
    assert sent[0][1] & h2.END_STREAM
    assert numbers(sent, h2.RST_STREAM) == ([] if end else [(1, h2.NO_ERROR)])
    assert not client.server.open
    assert client.say(call(3)) == [("BEGUN", 3), ("HEARD", 3)]


def test_a_malformed_call_is_reset_and_the_connection_goes_on() -> None:
    client = FrameClient()
    assert client.say(headers(1, h2.literal_fields([*REQUEST, (b"Upper", b"x")]))) == []
    assert numbers(client.hear(), h2.RST_STREAM) == [(1, h2.PROTOCOL_ERROR)]
    assert client.say(call(3)) == [("BEGUN", 3), ("HEARD", 3)]


@pytest.mark.parametrize("size", [METADATA_LIMIT, 40_000])
def test_too_much_metadata_is_a_status_once_the_client_uses_no_table(size: int) -> None:
    client = FrameClient()
    block = h2.literal_fields([*REQUEST, (b"big", b"v" * size)])
    cut = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    client.say(frame(h2.HEADERS, 0, 1, cut[0]))
    for part in cut[1:]:
        client.say(frame(h2.CONTINUATION, 0, 1, part))
    assert client.say(frame(h2.CONTINUATION, h2.END_HEADERS, 1)) == []
    assert status_of(client, 1)[b"grpc-status"] == b"%d" % RESOURCE_EXHAUSTED
    assert client.say(call(3)) == [("BEGUN", 3), ("HEARD", 3)]


def test_too_much_metadata_ends_the_connection_while_the_table_may_follow_from_it() -> None:
    client = SilentClient()
    client.say(h2.PREFACE + h2.settings({}))
    large = h2.literal_fields([*REQUEST, (b"big", b"v" * METADATA_LIMIT)])
    with pytest.raises(h2.ProtocolError) as caught:
        client.say(headers(1, large + b"\x40\x01a\x01b"))
    assert caught.value.code == h2.ENHANCE_YOUR_CALM


def test_too_large_trailers_break_their_call_alone() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(b"a")))
    block = h2.literal_fields([(b"big", b"v" * METADATA_LIMIT)])
    assert client.say(headers(1, block, h2.END_STREAM)) == [("GONE", 1)]
    assert numbers(client.hear(), h2.RST_STREAM) == [(1, h2.ENHANCE_YOUR_CALM)]


def test_a_client_that_was_asked_to_use_no_table_and_does_is_understood() -> None:
    client, encoder = FrameClient(), hpack.Encoder()
    for stream in range(1, 200, 2):
        block = encoder.encode([*REQUEST, (b"user-agent", b"okhttp"), (b"n", b"%d" % stream)])
        assert client.say(headers(stream, block, h2.END_STREAM))[0] == ("BEGUN", stream)
        metadata = client.server.open[stream].fields.metadata
        assert metadata == (("user-agent", "okhttp"), ("n", str(stream)))


def test_a_client_with_a_table_is_understood_before_and_after_it_gives_it_up() -> None:
    encoder = hpack.Encoder()
    client = SilentClient()
    client.say(h2.PREFACE + h2.settings({}))
    fields = [*REQUEST, (b"tenant", b"blue")]
    for stream in (1, 3):
        client.say(headers(stream, encoder.encode(fields, huffman=True)))
    client.say(h2.SETTINGS_ACK)
    encoder.header_table_size = 0
    for stream in (5, 7):
        client.say(headers(stream, encoder.encode(fields, huffman=True)))
    found = [client.calls[s].fields.metadata for s in (1, 3, 5, 7)]
    assert found == [(("tenant", "blue"),)] * 4


def test_calls_over_the_limit_are_refused_untouched() -> None:
    client = FrameClient()
    last = 2 * MAX_STREAMS + 1
    client.say(b"".join(headers(stream) for stream in range(1, last, 2)))
    assert client.say(headers(last)) == []
    assert numbers(client.hear(), h2.RST_STREAM) == [(last, h2.REFUSED_STREAM)]
    client.say(h2.rst_stream(1, h2.CANCEL))
    assert client.say(headers(last + 2)) == [("BEGUN", last + 2)]


def test_draining_takes_calls_that_are_on_their_way_and_refuses_later_ones() -> None:
    client = FrameClient()
    client.say(headers(1))
    client.server.drain()
    [away, asked] = client.hear()
    assert away[3][:8] == (2**31 - 1).to_bytes(4, "big") + bytes(4)
    assert client.say(call(3)) == [("BEGUN", 3), ("HEARD", 3)]
    client.say(frame(h2.PING, h2.ACK, 0, asked[3]))
    assert client.server.pings_answered == 1
    client.server.refuse_more()
    assert client.hear()[0][3][:4] == (3).to_bytes(4, "big")
    assert client.say(call(5)) == []
    assert numbers(client.hear(), h2.RST_STREAM) == [(5, h2.REFUSED_STREAM)]
    assert client.say(data(1, message(b"a"), end=True)) == [("HEARD", 1)]


def test_a_lost_connection_ends_all_calls() -> None:
    client = FrameClient()
    client.say(headers(1), headers(3), data(3, b"\0" + (900_000).to_bytes(4, "big")))
    gone = [(event.name, stream.id) for event, stream in client.server.lose()]
    assert gone == [("GONE", 1), ("GONE", 3)]
    assert not client.server.open


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/1.1\r\n",
        b"\0",
    ],
    ids=["HTTP/1.1", "TLS", "other preface", "zero"],
)
def test_what_is_not_http2_is_refused_wherever_it_is_cut(first: bytes) -> None:
    for cut in range(len(first)):
        server = CallStreams(MESSAGE_LIMIT, METADATA_LIMIT)
        told = b""
        try:
            server.receive(first[:cut])
            server.receive(first[cut:])
        except h2.ProtocolError as error:
            told = str(error).encode()
        assert b"HTTP/2 without TLS" in told
        assert not server.greeted


def test_only_the_last_shrink_of_the_clients_table_is_answered_once() -> None:
    client = FrameClient(header_table_size=0)
    client.say(call(1), call(3), h2.settings({h2.HEADER_TABLE_SIZE: 0}))
    for stream in (1, 3):
        client.server.sending.reply(client.calls[stream], b"", GOOD)
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    blocks = [payload for kind, _, _, payload in client.hear() if kind == h2.HEADERS]
    statuses = [dict(decoder.decode(block, raw=True)).get(b"grpc-status") for block in blocks]
    assert statuses == [None, b"0", None, b"0"]
    assert [block[:1] for block in blocks].count(b"\x20") == 1
