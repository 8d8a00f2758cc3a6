"""Rows out of a file, and what tells the file from another."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from forebay.batch_files.errors import BatchFileError
from forebay.batch_files.rows import Row

MAX_LINE_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 256

NO_PYARROW = (
    "Parquet files need pyarrow, which is not installed: `pip install 'forebay[parquet]'`, or use "
    ".jsonl files"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from another.

    Attributes:
        size_bytes: its size.
        digest: BLAKE2b of all of it, hexadecimal.
        row_count: rows in it.
    """

    size_bytes: int
    digest: str
    row_count: int


class Source(Protocol):
    """A file of rows."""

    def identity(self) -> Identity:
        """Reads all of the file once."""
        ...

    def rows(self, first: int) -> Iterator[Row]:
        """The rows, from position `first` on."""
        ...


class JsonLines:
    """One JSON value a line; empty lines are no rows."""

    def __init__(self, path: Path) -> None:
        """Names the file."""
        self._path = path

    def identity(self) -> Identity:
        """Reads all of the file once."""
        digest = hashlib.blake2b(digest_size=16)
        size_bytes = row_count = 0
        is_blank = True
        with _opened(self._path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size_bytes += len(block)
                *lines, rest = block.split(b"\n")
                for line in lines:
                    row_count += not (is_blank and not line.strip())
                    is_blank = True
                is_blank = is_blank and not rest.strip()
        return Identity(size_bytes, digest.hexdigest(), row_count + (not is_blank))

    def rows(self, first: int) -> Iterator[Row]:
        """The rows, from position `first` on."""
        position = number = 0
        with _opened(self._path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                fault = ""
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    fault = f"the line is longer than {MAX_LINE_BYTES} bytes"
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    line = line[:1000]
                elif not line.strip():
                    continue
                if position >= first:
                    yield Row(number, text=line, fault=fault)
                position += 1


class ParquetRows:
    """Rows of a Parquet file; each is an object of its columns."""

    def __init__(self, path: Path) -> None:
        """Names the file.

        Raises:
            BatchFileError: if pyarrow is not installed.
        """
        self._path = path
        pyarrow_parquet()

    def identity(self) -> Identity:
        """Reads all of the file once."""
        digest = hashlib.blake2b(digest_size=16)
        with _opened(self._path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
            size_bytes = file.tell()
        with self._open() as parquet:
            return Identity(size_bytes, digest.hexdigest(), parquet.metadata.num_rows)

    def rows(self, first: int) -> Iterator[Row]:
        """The rows, from position `first` on."""
        position = 0
        with self._open() as parquet:
            for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
                start = max(0, first - position)
                if start < batch.num_rows:
                    for offset, value in enumerate(batch.slice(start).to_pylist(), start):
                        yield Row(position + offset + 1, value=value)
                position += batch.num_rows

    def _open(self) -> Any:
        try:
            return pyarrow_parquet().ParquetFile(self._path)
        except (OSError, ValueError) as error:
            raise BatchFileError(f"cannot read {self._path} as Parquet: {error}") from error


def source_of(path: Path) -> Source:
    """The rows of a file, by the end of its name.

    Raises:
        BatchFileError: if there is no file of rows there.
    """
    if not path.is_file():
        raise BatchFileError(f"there is no file {path}")
    return ParquetRows(path) if is_parquet(path) else JsonLines(path)


def is_parquet(path: Path) -> bool:
    """Whether a file is, or is to be, Parquet.

    Raises:
        BatchFileError: if its name ends in neither of what can be read and written.
    """
    match path.suffix.lower():
        case ".parquet":
            return True
        case ".jsonl" | ".ndjson" | ".json":
            return False
    raise BatchFileError(f"{path}: the name must end in .jsonl, .ndjson or .parquet")


def pyarrow_parquet() -> Any:
    """pyarrow.parquet.

    Raises:
        BatchFileError: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise BatchFileError(NO_PYARROW) from error
    return pyarrow.parquet


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise BatchFileError(f"cannot read {path}: {error.strerror}") from error
