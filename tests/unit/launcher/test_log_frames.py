"""Lines come whole, whatever pieces the stream comes in."""

import pytest

from services.launcher.log_frames import MAX_LINE_BYTES, LogFrames
from services.launcher.refusal import RefusedError

TIME = b"2026-11-22T10:58:54.975912413Z "
TIME_NS = 1795345134975912413


def frame(text: bytes, output: int = 1, time: bytes = TIME) -> bytes:
    body = time + text
    return bytes([output, 0, 0, 0]) + len(body).to_bytes(4, "big") + body


def test_a_line_has_its_text_and_its_time() -> None:
    (line,) = LogFrames().take(frame(b"ready\n"))
    assert line.text == "ready\n"
    assert line.written_ns == TIME_NS


def test_the_stream_may_be_cut_at_every_byte() -> None:
    stream = frame(b"one\n") + frame(b"two\n", output=2) + frame("dr\u00fcei\n".encode())
    whole = LogFrames().take(stream)
    for cut in range(1, len(stream)):
        frames = LogFrames()
        assert frames.take(stream[:cut]) + frames.take(stream[cut:]) == whole
    assert [line.text for line in whole] == ["one\n", "two\n", "dr\u00fcei\n"]


def test_a_long_line_in_several_frames_is_one_line() -> None:
    frames = LogFrames()
    assert frames.take(frame(b"a" * 16384)) == []
    assert frames.take(frame(b"other\n", output=2))[0].text == "other\n"
    (line,) = frames.take(frame(b"b\n"))
    assert line.text == "a" * 16384 + "b\n"


def test_a_line_without_an_end_is_cut_at_its_limit() -> None:
    frames = LogFrames()
    found = [line for _ in range(9) for line in frames.take(frame(b"a" * 16384))]
    assert [len(line.text) for line in found] == [MAX_LINE_BYTES + 1] * 2


def test_a_character_cut_by_a_frame_is_whole() -> None:
    text = "\u00fc".encode()
    frames = LogFrames()
    assert frames.take(frame(text[:1])) == []
    (line,) = frames.take(frame(text[1:] + b"\n"))
    assert line.text == "\u00fc\n"


def test_what_is_no_text_is_replaced() -> None:
    (line,) = LogFrames().take(frame(b"\xff\xfe\n"))
    assert line.text == "\ufffd\ufffd\n"


def test_lines_of_then_and_before_are_left_out() -> None:
    later = b"2026-11-22T10:58:54.975912414Z "
    stream = frame(b"old\n") + frame(b"new\n", time=later)
    assert [line.text for line in LogFrames(TIME_NS).take(stream)] == ["new\n"]


def test_times_without_a_fraction_are_read() -> None:
    (line,) = LogFrames().take(frame(b"x\n", time=b"2026-11-22T10:58:54Z "))
    assert line.written_ns == TIME_NS // 10**9 * 10**9


@pytest.mark.parametrize(
    "stream",
    [b"\x07\0\0\0\0\0\0\x01x", b"\x01\0\0\0\xff\xff\xff\xff", frame(b"x\n", time=b"yesterday ")],
)
def test_what_is_no_frame_is_refused(stream: bytes) -> None:
    with pytest.raises(RefusedError, match="cannot be read"):
        LogFrames().take(stream)
