"""Header blocks that are decoded field by field, against hpack itself."""

import random

import hpack
import pytest

from services.wire.http2.server.known_fields import KnownFields, cut

LIMIT = 16_384
Field = tuple[bytes, bytes]


def decoder() -> hpack.Decoder:
    found = hpack.Decoder(max_header_list_size=LIMIT)
    found.max_allowed_table_size = 0
    found.header_table_size = 0
    return found


def by_hpack(block: bytes) -> list[Field] | str:
    try:
        return [(bytes(k), bytes(v)) for k, v in decoder().decode(block, raw=True)]
    except hpack.HPACKError:
        return "broken"


def by_field(known: KnownFields, block: bytes) -> list[Field] | str:
    try:
        return known.decode(block)
    except hpack.HPACKError:
        return "broken"


def random_field(dice: random.Random) -> Field | tuple[bytes, bytes, bool]:
    name = dice.choice([b":path", b":method", b"user-agent", b"a", b"n" * 127, b"www-authenticate"])
    value = bytes(
        dice.choices(b"abc01/\xff", k=dice.choice([0, 1, 20, 126, 127, 128, 254, 255, 300]))
    )
    return (name, value, True) if dice.random() < 0.3 else (name, value)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_of_any_encoder_say_what_hpack_says(seed: int) -> None:
    dice = random.Random(seed)
    known = KnownFields(decoder(), LIMIT)
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    for _ in range(100):
        fields = [random_field(dice) for _ in range(dice.randrange(6))]
        block = encoder.encode(fields, huffman=dice.random() < 0.5)
        assert by_field(known, block) == by_hpack(block)
        assert by_field(known, block) == [field[:2] for field in fields]


@pytest.mark.parametrize("seed", range(20))
def test_bytes_without_sense_say_what_hpack_says(seed: int) -> None:
    dice = random.Random(seed)
    known = KnownFields(decoder(), LIMIT)
    bytes_of_interest = (
        0,
        0x0F,
        0x10,
        0x1F,
        0x20,
        0x3F,
        0x40,
        0x7F,
        0x80,
        0x82,
        0xBE,
        0xFF,
        1,
        2,
        97,
    )
    for _ in range(2000):
        block = bytes(dice.choices(bytes_of_interest, k=dice.randrange(12)))
        assert by_field(known, block) == by_hpack(block)


@pytest.mark.parametrize("index", range(256))
def test_each_first_byte_says_what_hpack_says(index: int) -> None:
    known = KnownFields(decoder(), LIMIT)
    for rest in (b"", b"\x01a", b"\x01a\x01b", b"\x00\x01a", b"\x10\x01a", b"\x80\x01a"):
        block = bytes((index,)) + rest
        assert by_field(known, block) == by_hpack(block)


def test_plain_blocks_are_cut_by_a_look() -> None:
    assert cut(b"\x83\x00\x01a\x01b\x0f\x02\x01c\x44\x01d") == [
        b"\x83",
        b"\x00\x01a\x01b",
        b"\x0f\x02\x01c",
        b"\x44\x01d",
    ]


def test_fields_are_counted_as_hpack_counts_them() -> None:
    known = KnownFields(decoder(), LIMIT)
    one = b"\x00\x01a\x81\x1f"
    most = LIMIT // 34
    assert len(known.decode(one * most)) == most
    for size in (most + 1, 2 * most):
        with pytest.raises(hpack.OversizedHeaderListError):
            known.decode(one * size)


def test_it_is_not_remembered_endlessly() -> None:
    known = KnownFields(decoder(), LIMIT)
    for number in range(3000):
        value = b"%05d" % number
        assert known.decode(b"\x00\x01a\x05" + value) == [(b"a", value)]
    known.decode(b"\x00\x01a\x7f\x03" + b"v" * 130)
    assert len(known._memo) <= 512
    assert max(map(len, known._memo)) <= 128
