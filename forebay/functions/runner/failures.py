"""What is said of an exception that user code raised: its type, its message, its last frames.

The text of a failure, which is how one travels as Triton's error, is

    permanent: ValueError: not a picture
    Traceback (most recent call last):
      File "batch.py", line 12, in __call__
        raise ValueError("not a picture")

where `permanent: ` is there if trying again cannot help. It is bounded: it travels in a gRPC trailer.
"""  # noqa: E501

import re
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PERMANENT = "permanent: "
TRACEBACK = "Traceback (most recent call last):"

MAX_MESSAGE_CHARACTERS = 600
MAX_TRACEBACK_CHARACTERS = 1200
MAX_FRAMES = 6

# The router adds it to what a caller without trailers is shown.
_TRACE = re.compile(r" \[trace [0-9a-f]{32}\]$")
_OWN = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result.

    Attributes:
        kind: name of the exception's class.
        message: what it says.
        traceback: its last frames in the user's code; empty if it was not raised there.
        permanent: whether trying again cannot help.
    """

    kind: str
    message: str
    traceback: str = ""
    permanent: bool = False

    @property
    def text(self) -> str:
        """The failure as Triton's error says it."""
        head = f"{PERMANENT if self.permanent else ''}{self.kind}: {self.message}"
        return f"{head}\n{TRACEBACK}\n{self.traceback}" if self.traceback else head

    @property
    def envelope(self) -> dict[str, Any]:
        """The failure as one of several results says it."""
        error = asdict(self)
        error["type"] = error.pop("kind")
        return {"error": error}


def parse(text: str) -> Failure | None:
    """The failure in a text, whatever stands before it on its first line; None if there is none."""
    head, found, frames = _TRACE.sub("", text).partition(f"\n{TRACEBACK}\n")
    before, permanent, after = head.partition(PERMANENT)
    if permanent and (not before or before.endswith(": ")):
        head = after
    else:
        permanent = ""
    kind, colon, message = head.partition(": ")
    if not colon or not kind.replace(".", "").isidentifier():
        return None
    return Failure(kind, message, frames if found else "", bool(permanent))


def failure_of(error: BaseException, code: str) -> Failure:
    """What is said of an exception.

    Args:
        error: as it was caught.
        code: directory of the user's code, left out of file names; empty if it is not known.
    """
    inside = f"{code}/" if code else "\0"
    hidden = (_OWN, "<frozen importlib", f"{Path(code).parent / 'shim'}/")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(hidden)
        and not frame.filename.endswith("/importlib/__init__.py")
    ]
    lines = "".join(traceback.format_list(frames[-MAX_FRAMES:])).rstrip()
    if isinstance(error, SyntaxError):
        # Where it is, is in no frame.
        lines = "".join(traceback.format_exception_only(error)[:-1]).rstrip()
    lines = lines.replace(inside, "")
    if error.__cause__ is not None:
        cause = error.__cause__
        lines += f"\n  caused by {type(cause).__name__}: {str(cause)[:MAX_MESSAGE_CHARACTERS]}"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, ModuleNotFoundError):
        message += f" (add what provides it to requirements, or {error.name!r} to include)"
    return Failure(
        type(error).__name__,
        _clipped(message.replace(inside, ""), MAX_MESSAGE_CHARACTERS),
        lines[-MAX_TRACEBACK_CHARACTERS:],
        permanent=getattr(error, "forebay_permanent", False) is True,
    )


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
