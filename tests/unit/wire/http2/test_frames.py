"""HTTP/2 frames as bytes."""

import hpack
import pytest

from services.wire.http2 import frames as h2

FRAMES = [
    (h2.SETTINGS, 0, 0, b""),
    (h2.PING, h2.ACK, 0, b"12345678"),
    (h2.DATA, h2.END_STREAM, 2**31 - 1, b"x" * 300),
    (99, 0xFF, 7, b"unknown"),
]
BYTES = b"".join(h2.frame_header(len(p), k, f, s) + p for k, f, s, p in FRAMES)


def test_frames_are_the_same_wherever_the_bytes_are_cut() -> None:
    for cut in range(len(BYTES) + 1):
        reader = h2.FrameReader(1000)
        assert reader.feed(BYTES[:cut]) + reader.feed(BYTES[cut:]) == FRAMES


def test_frames_are_the_same_byte_by_byte() -> None:
    reader = h2.FrameReader(1000)
    found = [
        frame for index in range(len(BYTES)) for frame in reader.feed(BYTES[index : index + 1])
    ]
    assert found == FRAMES


def test_a_frame_that_comes_in_drops_is_kept_in_few_pieces() -> None:
    reader, payload = h2.FrameReader(20_000), bytes(range(200)) * 100
    whole = h2.frame_header(len(payload), h2.DATA, 0, 1) + payload
    for index in range(0, 19_998, 3):
        assert reader.feed(whole[index : index + 3]) == []
    assert len(reader._parts) <= 2 * len(whole) // 512
    assert reader.feed(whole[19_998:]) == [(h2.DATA, 0, 1, payload)]


def test_a_frame_larger_than_agreed_is_refused_before_it_has_come() -> None:
    with pytest.raises(h2.ProtocolError, match="1001 bytes") as caught:
        h2.FrameReader(1000).feed(h2.frame_header(1001, h2.DATA, 0, 1))
    assert caught.value.code == h2.FRAME_SIZE_ERROR


def test_the_reserved_bit_of_a_stream_is_ignored() -> None:
    assert h2.FrameReader(10).feed(h2.frame_header(0, h2.DATA, 0, 0x80000003)) == [
        (h2.DATA, 0, 3, b"")
    ]


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 300, 20_000])
def test_literal_fields_are_read_by_any_decoder(length: int) -> None:
    fields = [(b"te", b"v" * length), (b"n" * length or b"n", b"")]
    decoded = hpack.Decoder().decode(h2.literal_fields(fields), raw=True)
    assert [tuple(field) for field in decoded] == fields


def test_settings_are_read_as_they_were_written() -> None:
    values = {h2.MAX_FRAME_SIZE: 2**24 - 1, h2.HEADER_TABLE_SIZE: 0}
    [(kind, _, stream, payload)] = h2.FrameReader(100).feed(h2.settings(values))
    assert (kind, stream) == (h2.SETTINGS, 0)
    assert dict(h2.read_settings(payload)) == values


def test_padding_and_priority_are_cut_off() -> None:
    assert h2.unpadded(b"\x02abc\0\0", h2.PADDED) == b"abc"
    assert h2.unpadded(b"\x0112345abc\0", h2.PADDED | h2.PRIORITIZED) == b"abc"
    assert h2.unpadded(b"abc", 0) == b"abc"


@pytest.mark.parametrize(("payload", "flags"), [(b"", 8), (b"\x05abc", 8), (b"abc", 0x20)])
def test_more_padding_than_payload_is_refused(payload: bytes, flags: int) -> None:
    with pytest.raises(h2.ProtocolError):
        h2.unpadded(payload, flags)


def test_numbers_and_settings_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(h2.ProtocolError):
        h2.read_number(b"123", "RST_STREAM")
    with pytest.raises(h2.ProtocolError):
        list(h2.read_settings(b"12345"))
