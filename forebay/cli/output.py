"""What commands print: tables or JSON on standard output, everything else on standard error."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from enum import StrEnum
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


def out() -> Console:
    """Standard output; wide where it is not a terminal, so that nothing is cut for a script."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


@cache
def err() -> Console:
    """Standard error; one console, so that messages stand above the progress and not in it."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Prints a message for a person."""
    err().print(Text(message))


def print_json(value: Any) -> None:
    """Prints a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Prints a table on standard output; `empty` on standard error if it has no rows."""
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        # The first one names the row: half a name on a narrow terminal is none.
        table.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        # As Text: nothing that came from elsewhere is read as markup.
        table.add_row(*(Text(cell) for cell in row))
    out().print(table)


class Progress:
    """What is going on: a spinner on a terminal, lines elsewhere; nothing twice."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._last = ""

    def __call__(self, message: str) -> None:
        """Says what is being done now."""
        if message == self._last:
            return
        self._last = message
        if self._status is None:
            say(message)
        else:
            self._status.update(Text(message))

    def tick(self, message: str) -> None:
        """Shows what changes many times a second, on a terminal only."""
        if self._status is not None:
            self._status.update(Text(message))


@contextmanager
def progress(message: str = "") -> Iterator[Progress]:
    """Shows progress on standard error while the block runs."""
    console = err()
    if not console.is_terminal:
        yield Progress(None)
        return
    with console.status(Text(message)) as status:
        yield Progress(status)


def to_plain(message: Message) -> dict[str, Any]:
    """A message as JSON's types: durations in seconds, instants in ISO 8601, unknown as null."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type.full_name if field.message_type else ""
        name = f"{field.name}_s" if kind == Duration.DESCRIPTOR.full_name else field.name
        if field.has_presence and not message.HasField(field.name):
            plain[name] = None
        elif kind and field.message_type.GetOptions().map_entry:
            plain[name] = dict(value)
        elif field.is_repeated:
            plain[name] = [_plain_value(field, item) for item in value]
        else:
            plain[name] = _plain_value(field, value)
    return plain


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Duration):
        return value.ToMicroseconds() / 1e6
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC).isoformat()
    if isinstance(value, Message):
        return to_plain(value)
    if field.enum_type is not None:
        return enum_word(field.enum_type.name, field.enum_type.values_by_number[value].name)
    return value


def count_of(count: int, noun: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def enum_word(enum_name: str, value_name: str) -> str:
    """An enum's value as people read it: STATE_READY of State is `ready`."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum_name).upper()
    return value_name.removeprefix(f"{prefix}_").lower()
