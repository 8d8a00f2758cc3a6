"""Header blocks of calls."""

import base64
import random

import hpack
import pytest

from services.wire.http2 import frames as h2
from services.wire.http2.server.call_fields import (
    CallFieldReader,
    CallFields,
    MalformedCallError,
    TooManyFieldsError,
)
from tests.support.http2_frames import METADATA_LIMIT, REQUEST

Field = tuple[bytes, bytes]

NO_TABLE = b"\x20" + h2.literal_fields([(b"a", b"b")])
"""A block that begins with a table size of 0."""


def reader(has_table: bool = False) -> CallFieldReader:
    found = CallFieldReader(METADATA_LIMIT)
    if not has_table:
        found.skip(NO_TABLE)
    return found


def read(*more: Field) -> CallFields:
    return reader().read(h2.literal_fields([*REQUEST, *more]))


def without(name: bytes) -> list[Field]:
    return [(key, value) for key, value in REQUEST if key != name]


def test_a_plain_call_has_a_path_and_nothing_else() -> None:
    assert read() == CallFields("/a.B/C", None, "", (), True)


def test_metadata_keeps_its_order_and_hides_what_is_the_protocols() -> None:
    fields = read(
        (b"b", b"1"),
        (b"grpc-accept-encoding", b"gzip"),
        (b"grpc-tags-bin", b"AA"),
        (b"host", b"here"),
        (b"a", b"2"),
        (b"b", b"3"),
        (b"user-agent", b"me"),
    )
    assert fields.metadata == (("b", "1"), ("a", "2"), ("b", "3"), ("user-agent", "me"))


def test_text_that_is_not_ascii_is_read_as_far_as_it_goes() -> None:
    fields = read((b"a", "zürich".encode()), (b"b", b"\xff"), (b"c", b"  x "), (b"d", b""))
    assert fields.metadata == (
        ("a", "zürich"),
        ("b", "\N{REPLACEMENT CHARACTER}"),
        ("c", "x"),
        ("d", ""),
    )


@pytest.mark.parametrize("raw", [b"", b"a", b"ab", b"abc", b"\0\xff" * 50])
def test_binary_metadata_may_be_padded_or_not(raw: bytes) -> None:
    padded = base64.b64encode(raw)
    for value in (padded, padded.rstrip(b"=")):
        assert read((b"x-bin", value)).metadata == (("x-bin", raw),)


def test_binary_metadata_may_be_joined_with_commas() -> None:
    fields = read((b"x-bin", b"YQ==,YWI, YWJj"))
    assert fields.metadata == (("x-bin", b"a"), ("x-bin", b"ab"), ("x-bin", b"abc"))


@pytest.mark.parametrize("value", [b"a", b"!!!!", b"YWJ\xff", b"YQ=YQ", b"YW Jj", b"YWJjZ"])
def test_what_is_no_base64_is_malformed(value: bytes) -> None:
    with pytest.raises(MalformedCallError, match="base64"):
        read((b"x-bin", value))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"4m", 0.004),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"0n", 0),
        (b"99999999H", 359_999_996_400),
        (b"00000001S", 1),
    ],
)
def test_timeouts_are_read_in_each_unit(text: bytes, seconds: float) -> None:
    assert read((b"grpc-timeout", text)).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"1S ", "١S".encode()]
)
def test_other_timeouts_are_malformed(text: bytes) -> None:
    with pytest.raises(MalformedCallError, match="timeout"):
        read((b"grpc-timeout", text))


@pytest.mark.parametrize(("said", "meant"), [(b"gzip", "gzip"), (b"identity", ""), (b"", "")])
def test_an_encoding_is_named_unless_it_is_none(said: bytes, meant: str) -> None:
    assert read((b"grpc-encoding", said)).encoding == meant


@pytest.mark.parametrize(
    "more",
    [
        (b"Upper", b"x"),
        (b"sp ace", b"x"),
        (b"co:lon", b"x"),
        (b"nul\0", b"x"),
        (b"u\xfcber", b"x"),
        (b"", b"x"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b":path", b"/late"),
        (b":status", b"200"),
        (b":protocol", b"websocket"),
        (b"a", b"b\r\nc: d"),
        (b"a", b"b\nc"),
        (b"a", b"b\0"),
        (b"grpc-encoding", b"gzip\r"),
    ],
)
def test_what_no_request_may_say_is_malformed(more: Field) -> None:
    with pytest.raises(MalformedCallError):
        read(more)


@pytest.mark.parametrize("before", [(b"te", b"trailers"), (b"grpc-timeout", b"1S"), (b"a", b"b")])
def test_a_pseudo_field_after_any_other_is_malformed(before: Field) -> None:
    fields = [*REQUEST[:2], before, REQUEST[2], *REQUEST[3:]]
    with pytest.raises(MalformedCallError, match=":path"):
        reader().read(h2.literal_fields(fields))


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path"])
def test_a_request_without_a_pseudo_field_or_with_two_is_malformed(name: bytes) -> None:
    with pytest.raises(MalformedCallError):
        reader().read(h2.literal_fields(without(name)))
    with pytest.raises(MalformedCallError):
        reader().read(h2.literal_fields([(name, b"x"), *REQUEST]))


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_grpc_is_known_by_its_content_type(content_type: bytes, is_grpc: bool) -> None:
    fields = [*without(b"content-type"), (b"content-type", content_type)]
    assert reader().read(h2.literal_fields(fields)).is_grpc is is_grpc


def test_huffman_coded_blocks_say_the_same() -> None:
    block = hpack.Encoder().encode([*REQUEST, (b"tenant", b"blue" * 20)], huffman=True)
    assert reader(has_table=True).read(block) == read((b"tenant", b"blue" * 20))


def test_with_a_table_the_same_bytes_may_say_something_else() -> None:
    with_table = reader(has_table=True)
    base = h2.literal_fields(REQUEST)
    added = b"\x40\x01a\x01%c"
    assert with_table.read(base + added % b"1").metadata == (("a", "1"),)
    assert with_table.read(base + b"\xbe").metadata == (("a", "1"),)
    with_table.read(base + added % b"2")
    assert with_table.read(base + b"\xbe").metadata == (("a", "2"),)
    with_table.skip(NO_TABLE)
    with pytest.raises(h2.ProtocolError) as caught:
        with_table.read(base + b"\xbe")
    assert caught.value.code == h2.COMPRESSION_ERROR


def test_once_the_table_is_given_up_what_is_said_to_be_added_to_it_is_not() -> None:
    plain = reader(has_table=True)
    block = b"\x20" + h2.literal_fields(REQUEST) + b"\x40\x01a\x011"
    first = plain.read(block)
    assert plain.read(block) is first
    assert first.metadata == (("a", "1"),)
    with pytest.raises(h2.ProtocolError):
        plain.read(h2.literal_fields(REQUEST) + b"\xbe")


def test_a_client_that_takes_its_table_back_is_refused() -> None:
    with pytest.raises(h2.ProtocolError):
        reader().read(b"\x3f\xe1\x1f" + h2.literal_fields(REQUEST))


def test_a_client_may_change_its_mind_within_a_block() -> None:
    table = reader(has_table=True)
    base = h2.literal_fields(REQUEST)
    table.read(b"\x20\x3f\xe1\x1f" + base + b"\x40\x01a\x011")
    assert table.read(base + b"\xbe").metadata == (("a", "1"),)
    table.read(b"\x20\x20" + base)
    with pytest.raises(h2.ProtocolError):
        table.read(b"\x3f\xe1\x1f" + base)


def test_blocks_that_use_no_table_are_remembered_also_of_a_client_that_has_one() -> None:
    table = reader(has_table=True)
    block = h2.literal_fields(REQUEST)
    assert table.read(block) is table.read(block)
    # The same once more with a field that is added, one that was added, and a name that was.
    for last in (b"\x40\x01a\x011", b"\xbe", b"\x0f\x2f\x012"):
        assert table.read(block + last) is not table.read(block + last)
    table.skip(NO_TABLE)
    assert table.read(block) is table.read(block)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_table_a_client_uses_its_blocks_say_what_it_meant(seed: int) -> None:
    dice = random.Random(seed)
    table, encoder = reader(has_table=True), hpack.Encoder()
    for turn in range(300):
        if turn == 150 and seed % 2:
            encoder.header_table_size = 0
        more = [(b"k%d" % dice.randrange(9), b"v%d" % dice.randrange(9)) for _ in range(3)]
        secret = dice.random() < 0.3
        fields = [hpack.HeaderTuple(*field) for field in REQUEST]
        fields += [
            (hpack.NeverIndexedHeaderTuple if secret else hpack.HeaderTuple)(*f) for f in more
        ]
        block = encoder.encode(fields, huffman=dice.random() < 0.5)
        meant = tuple((key.decode(), value.decode()) for key, value in more)
        assert table.read(block).metadata == meant


def test_each_block_is_remembered_as_itself_and_not_endlessly() -> None:
    plain = reader()
    for number in range(2000):
        block = h2.literal_fields([*REQUEST, (b"n", b"%d" % number)])
        for _ in range(2):
            assert plain.read(block).metadata == (("n", str(number)),)
    assert len(plain._memo) <= 256


def test_small_blocks_that_say_much_are_not_remembered() -> None:
    plain = reader()
    block = h2.literal_fields(REQUEST) + b"\x8f" * 300
    assert len(block) < 512
    assert len(plain.read(block).metadata) == 300
    assert not plain._memo


@pytest.mark.parametrize(
    "block", [b"\x80", b"\xff\xff", b"\x00\x05ab", b"\x00\x81\x00\x00", b"\xc0"]
)
def test_what_cannot_be_decoded_ends_the_connection_without_being_repeated(block: bytes) -> None:
    with pytest.raises(h2.ProtocolError) as caught:
        reader().read(h2.literal_fields([(b"token", b"secret")]) + block)
    assert caught.value.code == h2.COMPRESSION_ERROR
    assert len(str(caught.value)) < 100
    assert "secret" not in str(caught.value)


def test_a_list_that_is_too_large_leaves_later_blocks_readable() -> None:
    plain = reader()
    for size in (METADATA_LIMIT, 5 * METADATA_LIMIT):
        with pytest.raises(TooManyFieldsError):
            plain.read(h2.literal_fields([*REQUEST, (b"a", b"v" * size)]))
    with pytest.raises(TooManyFieldsError):
        plain.read(h2.literal_fields(REQUEST) + b"\x8f" * 2000)
    assert plain.read(h2.literal_fields(REQUEST)).path == "/a.B/C"


def test_the_first_block_without_a_table_may_be_too_large() -> None:
    encoder = hpack.Encoder()
    plain = reader(has_table=True)
    plain.read(encoder.encode(REQUEST))
    encoder.header_table_size = 0
    with pytest.raises(TooManyFieldsError):
        plain.read(encoder.encode([*REQUEST, (b"a", b"\xfe" * 50_000)], huffman=False))
    assert plain.read(encoder.encode(REQUEST)).path == "/a.B/C"


def test_trailers_are_told_from_a_second_request() -> None:
    assert reader().skip(h2.literal_fields([(b"a", b"b")]))
    assert not reader().skip(h2.literal_fields(REQUEST))
