"""Messages of a stream, and compressed ones."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from services.wire.http2.server.messages import (
    BrokenMessageError,
    MessageReader,
    MessageTooLargeError,
    decompressed,
)
from tests.support.http2_frames import message

LIMIT = 10_000
BODIES = [b"", b"a", b"", b"x" * 300, b"last"]
BYTES = b"".join(message(body) for body in BODIES)


def taken(reader: MessageReader) -> list[bytes]:
    return [reader.take()[1] for _ in range(len(reader.messages))]


def test_messages_are_the_same_wherever_frames_begin() -> None:
    for first in range(len(BYTES) + 1):
        for second in (first, min(first + 3, len(BYTES))):
            reader = MessageReader()
            for part in (BYTES[:first], BYTES[first:second], BYTES[second:]):
                reader.feed(part, LIMIT)
            assert not reader.is_inside
            assert reader.unread_bytes == len(BYTES)
            assert taken(reader) == BODIES
            assert reader.unread_bytes == 0


def test_messages_are_the_same_in_pieces_of_any_size() -> None:
    dice = random.Random(1)
    for _ in range(200):
        bodies = [dice.randbytes(dice.choice([0, 1, 4, 600, 5000])) for _ in range(6)]
        sent = b"".join(message(body) for body in bodies)
        reader = MessageReader()
        while sent:
            size = dice.choice([1, 2, 5, 100, 511, 512, 3000])
            reader.feed(sent[:size], LIMIT)
            sent = sent[size:]
        assert taken(reader) == bodies


def test_it_is_known_what_is_missing_once_a_length_is_known() -> None:
    reader = MessageReader()
    known = []
    for index, byte in enumerate(message(b"abc")):
        reader.feed(bytes((byte,)), LIMIT)
        known.append((index, reader.missing_bytes, reader.is_inside))
    assert known[3:] == [(3, 0, True), (4, 3, True), (5, 2, True), (6, 1, True), (7, 0, False)]


def test_whether_a_message_is_compressed_is_kept_with_it() -> None:
    reader = MessageReader()
    reader.feed(b"\1\0\0\0\1a\0\0\0\0\1b", LIMIT)
    assert [reader.take(), reader.take()] == [(1, b"a"), (0, b"b")]


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(MessageTooLargeError) as caught:
        MessageReader().feed(message(b"ok") + b"\0" + (LIMIT + 1).to_bytes(4, "big"), LIMIT)
    assert caught.value.size_bytes == LIMIT + 1


def test_a_message_sent_byte_by_byte_is_kept_in_few_parts() -> None:
    reader = MessageReader()
    reader.feed(b"\0" + (LIMIT).to_bytes(4, "big"), LIMIT)
    for _ in range(LIMIT - 1):
        reader.feed(b"x", LIMIT)
    assert len(reader._parts) <= 2 * LIMIT // 512
    reader.feed(b"x", LIMIT)
    assert taken(reader) == [b"x" * LIMIT]


def test_many_messages_of_no_bytes_are_cut_in_one_go() -> None:
    reader = MessageReader()
    reader.feed(bytes(5 * 200_000), LIMIT)
    assert len(reader.messages) == 200_000


PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("body", [b"", b"hello", bytes(LIMIT)])
def test_compressed_messages_are_as_they_were(encoding: str, body: bytes) -> None:
    assert decompressed(PACKED[encoding](body), encoding, LIMIT) == body


@pytest.mark.parametrize("encoding", PACKED)
def test_a_message_that_grows_over_the_limit_is_refused_without_growing(encoding: str) -> None:
    packed = PACKED[encoding](bytes(200_000_000))
    assert len(packed) < 250_000
    with pytest.raises(MessageTooLargeError):
        decompressed(packed, encoding, LIMIT)


@pytest.mark.parametrize("encoding", PACKED)
def test_a_broken_message_is_told_from_one_cut_short(encoding: str) -> None:
    packed = PACKED[encoding](b"hello" * 50)
    for cut in range(len(packed)):
        with pytest.raises(BrokenMessageError, match="too early"):
            decompressed(packed[:cut], encoding, LIMIT)
    with pytest.raises(BrokenMessageError, match="not"):
        decompressed(b"no such thing", encoding, LIMIT)
    with pytest.raises(BrokenMessageError, match="more after the end"):
        decompressed(packed + b"x", encoding, LIMIT)


@pytest.mark.parametrize("encoding", ["", "identity", "snappy"])
def test_a_compressed_message_without_an_encoding_is_broken(encoding: str) -> None:
    with pytest.raises(BrokenMessageError, match="encoding"):
        decompressed(b"x", encoding, LIMIT)
