"""Pure: lines out of the engine's log stream, whole and in order, whatever the pieces it comes in.

The stream is made of frames: a byte for the output (1 standard, 2 error), three of zero, the length
as a big-endian number, then that many bytes (Engine API, "Attach to a container"). With times asked
for, each begins with one (RFC 3339, nanoseconds) and a space. A line longer than 16 KiB comes as
several frames, of which only the last ends with a line's end.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from services.launcher.refusal import Kind, RefusedError

HEADER_BYTES = 8
MAX_FRAME_BYTES = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
"""Longer lines are cut in pieces of that size."""

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00) ")
_OUTPUTS = frozenset({0, 1, 2})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log.

    Attributes:
        text: with its end; what is no UTF-8 in it is replaced.
        written_ns: when its end was written, in nanoseconds since the epoch of the engine's clock.
    """

    text: str
    written_ns: int


class LogFrames:
    """Takes the stream in pieces and gives lines."""

    def __init__(self, after_ns: int = 0) -> None:
        """Before the stream's first byte.

        Args:
            after_ns: lines written then or before are left out.
        """
        self._after_ns = after_ns
        self._bytes = bytearray()
        self._begun: dict[int, bytearray] = {}

    def take(self, piece: bytes) -> list[Line]:
        """Takes a piece of the stream; returns the lines that it completes.

        Raises:
            RefusedError: if it is none of that form.
        """
        self._bytes += piece
        lines: list[Line] = []
        while len(self._bytes) >= HEADER_BYTES:
            length = int.from_bytes(self._bytes[4:HEADER_BYTES], "big")
            output = self._bytes[0]
            if output not in _OUTPUTS or length > MAX_FRAME_BYTES:
                raise _unreadable(f"a frame of output {output} with {length} bytes")
            if len(self._bytes) < HEADER_BYTES + length:
                break
            frame = bytes(self._bytes[HEADER_BYTES : HEADER_BYTES + length])
            del self._bytes[: HEADER_BYTES + length]
            lines += self._frame(output, frame)
        return lines

    def _frame(self, output: int, frame: bytes) -> list[Line]:
        time = _TIME.match(frame)
        if time is None:
            raise _unreadable("a frame without a time")
        written_ns = _nanoseconds(time[1].decode(), (time[2] or b"").decode())
        if written_ns <= self._after_ns:
            return []
        begun = self._begun.setdefault(output, bytearray())
        begun += frame[time.end() :]
        *whole, rest = bytes(begun).split(b"\n")
        if len(rest) >= MAX_LINE_BYTES:
            whole, rest = [*whole, rest], b""
        self._begun[output] = bytearray(rest)
        return [Line(f"{line.decode(errors='replace')}\n", written_ns) for line in whole]


def _nanoseconds(seconds: str, fraction: str) -> int:
    moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def _unreadable(what: str) -> RefusedError:
    return RefusedError(
        Kind.INTERNAL, f"the engine's log stream cannot be read: it has {what}; update the engine"
    )
