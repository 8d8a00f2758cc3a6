"""How much clients may send: large messages take turns, and streams get back what was read."""

import random

import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.server import replies
from services.wire.http2.server.uploads import PLACES, STREAM_WINDOW_BYTES
from tests.support.http2_frames import FrameClient, data, frame, headers, message, numbers

LARGE = 200_000
GOOD = replies.trailers(0, "", ())


def first_bytes(body_bytes: int, padding: int = 0) -> bytes:
    """As much of a large message as any stream may send."""
    return message(bytes(body_bytes))[: STREAM_WINDOW_BYTES - padding]


def allowed(client: FrameClient) -> dict[int, int]:
    return dict(numbers(client.hear(), h2.WINDOW_UPDATE))


def uploading(count: int) -> FrameClient:
    """A client with so many calls that have sent the first bytes of a large message."""
    client = FrameClient()
    for stream in range(1, 2 * count, 2):
        client.say(headers(stream), data(stream, first_bytes(LARGE)))
    return client


REST = LARGE + 5 - STREAM_WINDOW_BYTES


def rest(stream: int, end: bool = True) -> bytes:
    return data(stream, bytes(REST), end)


def test_a_large_message_is_allowed_whole_once_its_length_is_known() -> None:
    client = uploading(1)
    assert allowed(client) == {1: REST}
    assert client.say(rest(1)) == [("HEARD", 1)]
    assert client.read(1) == bytes(LARGE)


def test_a_small_message_is_allowed_nothing_more() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(bytes(60_000)), end=True))
    assert allowed(client) == {}


def test_so_many_large_messages_come_at_once_and_the_others_wait() -> None:
    client = uploading(PLACES + 3)
    assert list(allowed(client)) == [1, 3, 5, 7]


@pytest.mark.parametrize("way", ["complete", "half", "reset", "answered", "cancelled", "cut"])
def test_the_next_begins_when_one_ends_in_whatever_way(way: str) -> None:
    client = uploading(PLACES + 2)
    client.hear()
    match way:
        case "complete":
            client.say(rest(3))
        case "half":
            client.say(rest(3, end=False))
        case "reset":
            client.say(h2.rst_stream(3, h2.CANCEL))
        case "answered":
            client.server.sending.reply(client.calls[3], b"enough", GOOD)
        case "cancelled":
            client.server.cancel(client.calls[3])
        case "cut":
            client.say(data(3, b"x", end=True))
    assert allowed(client) == {9: REST}
    client.say(rest(1))
    assert allowed(client) == {11: REST}


def test_one_that_is_gone_while_it_waits_is_passed_over() -> None:
    client = uploading(PLACES + 2)
    client.hear()
    client.say(h2.rst_stream(9, h2.CANCEL), rest(1))
    assert allowed(client) == {11: REST}


def test_frames_without_bytes_of_one_that_waits_get_it_no_second_turn() -> None:
    client = uploading(PLACES + 1)
    client.hear()
    client.say(data(9, b"") * 1000, data(1, b"") * 1000)
    assert allowed(client) == {}
    client.say(rest(1), rest(3))
    assert allowed(client) == {9: REST}


@pytest.mark.parametrize("stream", [1, 9])
def test_a_client_that_sends_more_than_it_may_is_cut_off(stream: int) -> None:
    client = uploading(PLACES + 1)
    with pytest.raises(h2.ProtocolError) as caught:
        client.say(data(stream, bytes(REST + 1 if stream == 1 else 1)))
    assert caught.value.code == h2.FLOW_CONTROL_ERROR


def test_the_connection_is_widened_before_it_is_exhausted() -> None:
    client = FrameClient()
    left, chunk = h2.MAX_WINDOW_BYTES, bytes(250_000)
    # What comes on a stream that is gone counts, too.
    client.say(headers(1), h2.rst_stream(1, h2.CANCEL))
    frames = data(1, chunk) * 20
    for _ in range(500):
        left -= 20 * len(chunk)
        client.say(frames)
        left += sum(size for where, size in numbers(client.hear(), h2.WINDOW_UPDATE) if not where)
        assert left > 2**29


def test_padding_counts_and_is_given_back() -> None:
    client = FrameClient()
    client.say(headers(1))
    window, padded = STREAM_WINDOW_BYTES, frame(h2.DATA, h2.PADDED, 1, b"\xff" + bytes(255))
    for _ in range(2000):
        window -= 256
        assert window >= 0
        client.say(padded)
        window += allowed(client).get(1, 0)
    assert window <= STREAM_WINDOW_BYTES


def test_a_padded_large_message_is_allowed_what_its_padding_took() -> None:
    client = FrameClient()
    body = message(bytes(LARGE))
    client.say(headers(1))
    window, sent = STREAM_WINDOW_BYTES, 0
    while sent < len(body):
        size = min(max(1, window - 256), 1000, len(body) - sent)
        assert size <= window
        part = body[sent : sent + size]
        if size < window:
            padding = bytes(min(255, window - 1 - size))
            client.say(frame(h2.DATA, h2.PADDED, 1, bytes((len(padding),)) + part + padding))
            window -= 1 + len(padding)
        else:
            client.say(data(1, part))
        sent += size
        window += allowed(client).get(1, 0) - size
    assert client.read(1) == bytes(LARGE)


def test_a_stream_gets_back_what_was_read_of_it_and_stalls_when_nobody_reads() -> None:
    client = FrameClient()
    client.say(headers(1))
    window, sent, one = STREAM_WINDOW_BYTES, 0, message(bytes(1000))
    while window >= len(one):
        client.say(data(1, one))
        window += allowed(client).get(1, 0) - len(one)
        sent += 1
    assert sent == STREAM_WINDOW_BYTES // len(one)
    for left in reversed(range(sent)):
        client.read(1)
        assert client.calls[1].window + left * len(one) <= STREAM_WINDOW_BYTES
    assert window + allowed(client)[1] > STREAM_WINDOW_BYTES // 2
    assert client.calls[1].window <= STREAM_WINDOW_BYTES


def test_unread_messages_are_bounded_by_the_window_and_one_large_message() -> None:
    client = FrameClient()
    client.say(headers(1), data(1, message(bytes(30_000))))
    client.say(data(1, first_bytes(LARGE)[: client.calls[1].window]))
    client.say(data(1, bytes(client.calls[1].reader.missing_bytes)))
    assert len(client.calls[1].reader.messages) == 2
    assert client.calls[1].window == 0


class PoliteClient:
    """Sends messages on many streams, never more than it may, in a random order."""

    def __init__(self, dice: random.Random, streams: int) -> None:
        self.dice = dice
        self.client = FrameClient()
        self.windows: dict[int, int] = {}
        self.left: dict[int, bytes] = {}
        self.due: dict[int, list[bytes]] = {}
        self.read: dict[int, list[bytes]] = {}
        sizes = (0, 1, 1000, 65_530, 65_531, 70_000, 150_000)
        for stream in range(1, 2 * streams, 2):
            self.due[stream] = [bytes(dice.choice(sizes)) for _ in range(dice.choice([1, 1, 4]))]
            self.left[stream] = b"".join(map(message, self.due[stream]))
            self.windows[stream] = STREAM_WINDOW_BYTES
            self.read[stream] = []
            self.client.say(headers(stream))

    def step(self) -> None:
        """Some stream sends something, or its messages are read, or it ends early."""
        stream = self.dice.choice(list(self.left))
        size = min(self.windows[stream], self.dice.choice([1, 300, 16_384, 60_000]))
        part, self.left[stream] = self.left[stream][:size], self.left[stream][size:]
        if part:
            self.windows[stream] -= len(part)
            self.client.say(data(stream, part))
        if self.dice.random() < 0.5:
            self._read(stream)
        if self.dice.random() < 0.01:
            self._leave(stream)
        elif not self.left[stream]:
            self.client.say(data(stream, b"", end=True))
            self._read(stream)
            assert self.read[stream] == self.due[stream]
            del self.left[stream]
        for where, increment in numbers(self.client.hear(), h2.WINDOW_UPDATE):
            if where:
                self.windows[where] += increment

    def _read(self, stream: int) -> None:
        call = self.client.calls[stream]
        while call.reader.messages:
            self.read[stream].append(self.client.server.read(call)[1])

    def _leave(self, stream: int) -> None:
        call = self.client.calls[stream]
        match self.dice.randrange(3):
            case 0:
                self.client.say(h2.rst_stream(stream, h2.CANCEL))
            case 1:
                self.client.server.sending.end(call, GOOD)
            case 2:
                self.client.server.cancel(call)
        del self.left[stream]

    def large_ones(self) -> int:
        """Streams that may send more than any may."""
        return sum(c.window > STREAM_WINDOW_BYTES for c in self.client.server.open.values())


@pytest.mark.parametrize("seed", range(25))
def test_a_client_that_keeps_to_its_windows_always_finishes(seed: int) -> None:
    polite = PoliteClient(random.Random(seed), streams=30)
    for _ in range(60_000):
        if not polite.left:
            break
        polite.step()
        assert polite.large_ones() <= PLACES
    assert not polite.left
    uploads = polite.client.server._uploads
    assert uploads._taken == 0
    assert not uploads._waiting
