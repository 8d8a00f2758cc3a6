"""What header blocks and bytes of a reply say."""

from services.wire.http2.client.replies import Failure, FieldReader, Fields, reply_of
from services.wire.http2.frames import literal_fields


def block(status: int, message: bytes) -> bytes:
    return literal_fields([(b"grpc-status", b"%d" % status), (b"grpc-message", message)])


def test_a_text_that_is_encoded_wrongly_is_kept_as_it_is() -> None:
    fields = FieldReader(1000).read(block(13, b"100% %zz \xff"))
    assert fields == Fields(200, 13, "100% %zz \N{REPLACEMENT CHARACTER}")


def test_a_block_that_was_read_before_means_the_same() -> None:
    reader = FieldReader(1000)
    for index in range(200):
        text = str(index % 100)
        assert reader.read(block(9, text.encode())) == Fields(200, 9, text)
        assert reader.read(block(9, text.encode())) == Fields(200, 9, text)


def test_a_status_other_than_ok_outweighs_a_reply() -> None:
    assert reply_of(200, Fields(200, 5, "no"), [b"\0\0\0\0\0"]) == Failure(5, "no")
    assert reply_of(200, Fields(200, 0, ""), [b"\0\0\0\0\0"]) == b""
