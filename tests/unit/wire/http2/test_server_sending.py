"""Answers within the windows of a client."""

import random

import hpack
import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.server import call_streams, replies
from tests.support.http2_frames import (
    FrameClient,
    bodies,
    call,
    data,
    headers,
    kinds,
    message,
    numbers,
)

GOOD = replies.trailers(0, "", ())


def asked(*streams: int, **settings: int) -> FrameClient:
    """A client that has made calls."""
    client = FrameClient(**settings)
    client.say(*(call(stream) for stream in streams))
    return client


def test_a_reply_larger_than_the_streams_window_goes_on_as_it_widens() -> None:
    client = asked(1, initial_window_size=10)
    whole = message(b"0123456789abcdef")
    client.server.sending.reply(client.calls[1], b"0123456789abcdef", GOOD)
    sent = client.hear()
    assert kinds(sent) == [(h2.HEADERS, 1), (h2.DATA, 1)]
    assert bodies(sent) == {1: whole[:10]}
    assert client.say(h2.window_update(1, 4)) == []
    assert bodies(client.hear()) == {1: whole[10:14]}
    assert client.say(h2.window_update(1, 100)) == [("SENT", 1)]
    sent = client.hear()
    assert kinds(sent) == [(h2.DATA, 1), (h2.HEADERS, 1)]
    assert bodies(sent) == {1: whole[14:]}
    assert not client.server.open


def test_a_reply_larger_than_the_connections_window_goes_on_as_it_widens() -> None:
    client = asked(1, initial_window_size=1_000_000)
    client.server.sending.reply(client.calls[1], bytes(100_000), GOOD)
    assert len(bodies(client.hear())[1]) == h2.DEFAULT_WINDOW_BYTES
    assert client.say(h2.window_update(1, 100_000)) == []
    assert client.hear() == []
    assert client.say(h2.window_update(0, 100_000)) == [("SENT", 1)]
    assert len(bodies(client.hear())[1]) == 100_005 - h2.DEFAULT_WINDOW_BYTES
    assert client.server.sending.kept_bytes == 0


@pytest.mark.parametrize("limit", [16_384, 20_000, 2**24 - 1])
def test_no_frame_is_larger_than_the_client_takes(limit: int) -> None:
    client = asked(1, initial_window_size=10**6, max_frame_size=limit)
    client.say(h2.window_update(0, 10**6))
    block = replies.trailers(0, "", [("big", "v" * 50_000)])
    client.server.sending.reply(client.calls[1], bytes(60_000), block)
    sent = client.hear()
    assert max(len(payload) for _, _, _, payload in sent) <= limit
    assert len(bodies(sent)[1]) == 60_005
    tail = [(kind, flags) for kind, flags, _, _ in sent if kind != h2.DATA][1:]
    assert tail[0][1] & h2.END_STREAM
    assert [flags & h2.END_HEADERS for _, flags in tail] == [0] * (len(tail) - 1) + [4]
    whole = b"".join(payload for kind, _, _, payload in sent if kind != h2.DATA)
    assert b"v" * 50_000 in whole


def test_messages_of_no_bytes_are_sent() -> None:
    client = asked(1)
    client.server.sending.reply(client.calls[1], b"", GOOD)
    assert bodies(client.hear()) == {1: bytes(5)}


def test_a_window_may_become_negative_and_has_to_be_made_good() -> None:
    client = asked(1, initial_window_size=100)
    client.server.sending.message(client.calls[1], bytes(195))
    assert len(bodies(client.hear())[1]) == 100
    client.say(h2.settings({h2.INITIAL_WINDOW_SIZE: 10}))
    client.say(h2.window_update(1, 90))
    assert bodies(client.hear()) == {}
    client.say(h2.window_update(1, 1))
    assert len(bodies(client.hear())[1]) == 1
    assert client.say(h2.settings({h2.INITIAL_WINDOW_SIZE: 200})) == [("SENT", 1)]
    assert len(bodies(client.hear())[1]) == 99


def test_a_smaller_window_holds_for_calls_that_come_later_too() -> None:
    client = asked(1, initial_window_size=100)
    client.say(h2.settings({h2.INITIAL_WINDOW_SIZE: 7}), call(3))
    client.hear()
    for stream in (1, 3):
        client.server.sending.reply(client.calls[stream], bytes(20), GOOD)
    assert {s: len(b) for s, b in bodies(client.hear()).items()} == {1: 7, 3: 7}


def test_a_call_that_waits_for_its_own_window_does_not_hold_up_others() -> None:
    client = asked(1, 3, initial_window_size=50)
    client.say(h2.window_update(3, 10_000))
    client.server.sending.reply(client.calls[1], bytes(100), GOOD)
    client.server.sending.reply(client.calls[3], bytes(1000), GOOD)
    assert list(client.server.open) == [1]


def test_calls_that_wait_for_the_connection_take_turns() -> None:
    client = asked(1, 3, 5, initial_window_size=10**6)
    for stream in (1, 3, 5):
        client.server.sending.reply(client.calls[stream], bytes(100_000), GOOD)
    client.hear()
    order = []
    for _ in range(6):
        client.say(h2.window_update(0, 1000))
        order += list(bodies(client.hear()))
    assert order == [1, 3, 5, 1, 3, 5]


def test_while_the_client_does_not_read_messages_are_kept() -> None:
    client = asked(1, 3, 5)
    sending = client.server.sending
    sending.pause()
    sending.reply(client.calls[1], b"a", GOOD)
    sending.message(client.calls[3], b"b")
    sending.end(client.calls[5], replies.trailers(5, "no", ()))
    assert bodies(client.hear()) == {}
    assert client.say(h2.window_update(0, 10), h2.window_update(3, 10)) == []
    assert bodies(client.hear()) == {}
    assert sending.resume() == [client.calls[1], client.calls[3]]
    assert bodies(client.hear()) == {1: message(b"a"), 3: message(b"b")}
    assert list(client.server.open) == [3]


def test_a_reply_after_metadata_begins_only_once() -> None:
    client = asked(1)
    client.server.sending.begin(client.calls[1], replies.metadata_fields([("a", "b")]))
    client.server.sending.reply(client.calls[1], b"x", GOOD)
    sent = client.hear()
    assert kinds(sent) == [(h2.HEADERS, 1), (h2.DATA, 1), (h2.HEADERS, 1)]
    assert dict(hpack.Decoder().decode(sent[0][3], raw=True))[b"a"] == b"b"


def test_an_answer_before_the_request_has_ended_tells_the_client_to_stop() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(b"first")))
    client.server.sending.reply(client.calls[1], b"enough", GOOD)
    assert numbers(client.hear(), h2.RST_STREAM) == [(1, h2.NO_ERROR)]
    assert client.say(data(1, message(b"late"))) == []


def test_trailers_wait_for_the_messages_before_them() -> None:
    client = asked(1, initial_window_size=0)
    sending = client.server.sending
    sending.message(client.calls[1], b"a")
    sending.end(client.calls[1], replies.trailers(13, "late", ()))
    assert kinds(client.hear()) == [(h2.HEADERS, 1)]
    client.say(h2.window_update(1, 6))
    assert kinds(client.hear()) == [(h2.DATA, 1), (h2.HEADERS, 1)]


def test_nothing_is_sent_on_a_call_that_is_gone() -> None:
    client = asked(1, initial_window_size=0)
    sending = client.server.sending
    sending.message(client.calls[1], b"kept")
    assert client.say(h2.rst_stream(1, h2.CANCEL)) == [("GONE", 1)]
    client.hear()
    sending.message(client.calls[1], b"more")
    sending.reply(client.calls[1], b"more", GOOD)
    sending.end(client.calls[1], GOOD)
    client.say(h2.window_update(0, 100), h2.settings({h2.INITIAL_WINDOW_SIZE: 100}))
    assert kinds(client.hear()) == [(h2.SETTINGS, 0)]
    assert sending.kept_bytes == 0


def test_a_client_that_takes_no_answers_begins_no_more_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_streams, "MAX_KEPT_BYTES", 1000)
    client = asked(1, initial_window_size=0)
    client.server.sending.reply(client.calls[1], bytes(2000), GOOD)
    assert client.say(call(3)) == []
    assert (3, h2.REFUSED_STREAM) in numbers(client.hear(), h2.RST_STREAM)
    client.say(h2.window_update(1, 3000))
    assert client.say(call(5)) == [("BEGUN", 5), ("HEARD", 5)]


@pytest.mark.parametrize("seed", range(30))
def test_every_answer_arrives_whole_however_windows_change(seed: int) -> None:
    dice = random.Random(seed)
    client = FrameClient(initial_window_size=dice.choice([0, 1, 1000, 65_535]))
    streams = list(range(1, 41, 2))
    client.say(*(call(stream) for stream in streams))
    client.hear()
    due = {s: dice.randbytes(dice.choice([0, 3, 5000, 16_379, 16_380, 90_000])) for s in streams}
    left, got = list(streams), dict.fromkeys(streams, b"")
    initial, ended, events = client.server.sending.initial_window, set(), []
    own, connection = dict.fromkeys(streams, initial), h2.DEFAULT_WINDOW_BYTES
    for step in range(5000):
        match dice.randrange(6 if step < 300 else 3):
            case 0 if left:
                stream = left.pop(dice.randrange(len(left)))
                client.server.sending.reply(client.calls[stream], due[stream], GOOD)
            case 1:
                widened, size = dice.choice(streams), dice.choice([1, 500, 40_000])
                own[widened] += size
                events += client.say(h2.window_update(widened, size))
            case 2:
                size = dice.choice([1, 3000, 50_000])
                connection += size
                events += client.say(h2.window_update(0, size))
            case 3:
                value = dice.choice([0, 1, 5000, 70_000])
                own = {s: window + value - initial for s, window in own.items()}
                initial = value
                events += client.say(h2.settings({h2.INITIAL_WINDOW_SIZE: value}))
            case 4:
                client.server.sending.pause()
            case 5:
                client.server.sending.resume()
        if step >= 300:
            client.server.sending.resume()
        for kind, flags, stream, payload in client.hear():
            if kind == h2.DATA:
                assert len(payload) <= max(0, own[stream])
                own[stream] -= len(payload)
                connection -= len(payload)
                assert connection >= 0
                got[stream] += payload
            elif kind == h2.HEADERS and flags & h2.END_STREAM:
                ended.add(stream)
    assert got == {stream: message(body) for stream, body in due.items()}
    assert ended == set(streams)
    assert not client.server.open
    assert client.server.sending.kept_bytes == 0


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (h2.INITIAL_WINDOW_SIZE, 2**31, h2.FLOW_CONTROL_ERROR),
        (h2.MAX_FRAME_SIZE, 16_383, h2.PROTOCOL_ERROR),
        (h2.MAX_FRAME_SIZE, 2**24, h2.PROTOCOL_ERROR),
        (h2.ENABLE_PUSH, 2, h2.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_their_range_end_the_connection(key: int, value: int, code: int) -> None:
    with pytest.raises(h2.ProtocolError) as caught:
        FrameClient().say(h2.settings({key: value}))
    assert caught.value.code == code


def test_unknown_settings_are_ignored() -> None:
    client = FrameClient()
    client.say(h2.settings({99: 5}))
    assert client.hear() == [(h2.SETTINGS, h2.ACK, 0, b"")]


def test_a_setting_that_widens_a_stream_too_far_ends_the_connection() -> None:
    client = asked(1)
    client.say(h2.window_update(1, 2**31 - 1 - 65_535))
    with pytest.raises(h2.ProtocolError) as caught:
        client.say(h2.settings({h2.INITIAL_WINDOW_SIZE: 65_536}))
    assert caught.value.code == h2.FLOW_CONTROL_ERROR


def test_a_connection_that_is_widened_too_far_is_ended() -> None:
    client = FrameClient()
    client.say(h2.window_update(0, 2**31 - 1 - 65_535))
    with pytest.raises(h2.ProtocolError) as caught:
        client.say(h2.window_update(0, 1))
    assert caught.value.code == h2.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("increment", "code"), [(0, h2.PROTOCOL_ERROR), (2**31 - 1, h2.FLOW_CONTROL_ERROR)]
)
def test_a_stream_that_is_widened_wrongly_is_ended_alone(increment: int, code: int) -> None:
    client = asked(1)
    assert client.say(h2.window_update(1, increment)) == [("GONE", 1)]
    assert numbers(client.hear(), h2.RST_STREAM) == [(1, code)]
    assert client.say(call(3)) == [("BEGUN", 3), ("HEARD", 3)]


def test_a_connection_that_is_widened_by_nothing_is_ended() -> None:
    with pytest.raises(h2.ProtocolError):
        FrameClient().say(h2.window_update(0, 0))


def test_metadata_of_replies_is_readable_by_any_client() -> None:
    block = replies.trailers(
        7,
        "no 100 % für dich\n",
        [
            ("Key", "a\r\nb: c"),
            ("x-bin", b"\0\xff"),
            ("y-bin", "text"),
            ("z", b"raw\x80"),
            ("s", " a "),
        ],
    )
    assert [(bytes(k), bytes(v)) for k, v in hpack.Decoder().decode(block, raw=True)] == [
        (b"grpc-status", b"7"),
        (b"grpc-message", b"no 100 %25 f%C3%BCr dich%0A"),
        (b"key", b"a??b: c"),
        (b"x-bin", b"AP8"),
        (b"y-bin", b"dGV4dA"),
        (b"z", b"raw?"),
        (b"s", b"a"),
    ]
