"""Answers into a file that appears when it is complete, and can be gone on with until then."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from forebay.batch_files import row_tensors
from forebay.batch_files.errors import BatchFileError
from forebay.batch_files.rows import VALUE, line_of
from forebay.batch_files.sources import is_parquet, pyarrow_parquet


class Sink(Protocol):
    """Where answers go. `mark` counts what is safe, in a unit of the sink's own."""

    def open(self, mark: int) -> None:
        """Goes on behind `mark`; 0 begins."""
        ...

    def write(self, answer: Any) -> None:
        """Adds an answer."""
        ...

    def flush(self) -> int:
        """Makes what was added safe; returns the new mark."""
        ...

    def close(self) -> None:
        """Lets the unfinished file go; it can be gone on with."""
        ...

    def publish(self) -> None:
        """Gives the finished file its name; nothing happens if it has it."""
        ...

    def discard(self) -> None:
        """Removes what is unfinished."""
        ...


class Lines:
    """One line of JSON for each answer; the mark is a size in bytes."""

    def __init__(self, target: Path) -> None:
        """Names the file; nothing is written."""
        self._target = target
        self._partial = target.with_name(f"{target.name}.partial")
        self._file: Any = None

    def open(self, mark: int) -> None:
        """Goes on behind `mark` bytes; 0 begins.

        Raises:
            BatchFileError: if the file is shorter than that, or another run writes to it.
        """
        self._file = self._partial.open("ab")
        try:
            lock(self._file.fileno(), self._target)
            size_bytes = self._partial.stat().st_size
            if size_bytes < mark:
                raise BatchFileError(
                    f"{self._partial} has {size_bytes} bytes where {mark} were written: begin "
                    "again with --force"
                )
            # A line that was cut off, and what its checkpoint does not speak of.
            self._file.truncate(mark)
        except BaseException:
            self.close()
            raise

    def write(self, answer: Any) -> None:
        """Adds an answer.

        Raises:
            RowError: if JSON has no form for it.
        """
        self._file.write(line_of(answer))

    def flush(self) -> int:
        """Makes what was added safe; returns the size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes: int = os.fstat(self._file.fileno()).st_size
        return size_bytes

    def close(self) -> None:
        """Lets the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def publish(self) -> None:
        """Gives the file its name."""
        self.close()
        if self._partial.exists():
            self._partial.replace(self._target)

    def discard(self) -> None:
        """Removes the unfinished file."""
        self.close()
        self._partial.unlink(missing_ok=True)


class ParquetParts:
    """Parts that become one Parquet file at the end; the mark counts parts."""

    def __init__(self, target: Path) -> None:
        """Names the file; nothing is written.

        Raises:
            BatchFileError: if pyarrow is not installed.
        """
        self._target = target
        self._folder = target.with_name(f"{target.name}.partial")
        self._rows: list[dict[str, Any]] = []
        self._count = 0
        self._held: int | None = None
        self._parquet = pyarrow_parquet()
        import pyarrow

        self._arrow = pyarrow

    def open(self, mark: int) -> None:
        """Goes on behind `mark` parts; 0 begins.

        Raises:
            BatchFileError: if a part is missing, or another run writes to it.
        """
        self._folder.mkdir(exist_ok=True)
        self._held = os.open(self._folder, os.O_RDONLY)
        try:
            lock(self._held, self._target)
            self._count = mark
            wanted = {self._part(number) for number in range(mark)}
            for found in self._folder.iterdir():
                if found not in wanted:
                    found.unlink()
            missing = [part for part in sorted(wanted) if not part.exists()]
            if missing:
                raise BatchFileError(f"{missing[0]} is missing: begin again with --force")
        except BaseException:
            self.close()
            raise

    def write(self, answer: Any) -> None:
        """Adds an answer.

        Raises:
            RowError: if there is no form for it.
        """
        row = row_tensors.plain(answer)
        self._rows.append(row if isinstance(row, dict) else {VALUE: row})

    def flush(self) -> int:
        """Writes what was added as a part; returns how many there are."""
        if self._rows:
            part = self._part(self._count)
            self._parquet.write_table(self._arrow.Table.from_pylist(self._rows), part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            self._rows = []
            self._count += 1
        return self._count

    def close(self) -> None:
        """Lets the parts go."""
        self._rows = []
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def publish(self) -> None:
        """Joins the parts, one in memory at a time, and gives the whole its name."""
        self.close()
        if not self._folder.exists():
            return
        parts = sorted(self._folder.glob("part-*.parquet"))
        schemas = [self._parquet.read_schema(part) for part in parts]
        # A column may be whole numbers in one part and fractions, or nothing, in another.
        none = self._arrow.schema([])
        schema = self._arrow.unify_schemas([none, *schemas], promote_options="permissive")
        whole = self._folder / "whole.parquet"
        with self._parquet.ParquetWriter(whole, schema) as writer:
            for part in parts:
                table = self._parquet.read_table(part)
                missing = [name for name in schema.names if name not in table.schema.names]
                for name in missing:
                    table = table.append_column(
                        schema.field(name), self._arrow.nulls(len(table), schema.field(name).type)
                    )
                writer.write_table(table.select(schema.names).cast(schema))
        whole.replace(self._target)
        shutil.rmtree(self._folder)

    def discard(self) -> None:
        """Removes the parts."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:08}.parquet"


def sink_of(target: Path) -> Sink:
    """Where the answers for a file go, by the end of its name."""
    return ParquetParts(target) if is_parquet(target) else Lines(target)


def lock(descriptor: int, target: Path) -> None:
    """Keeps other runs from writing to the same file for as long as it is open.

    Raises:
        BatchFileError: if one does.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BatchFileError(f"another run writes to {target} right now") from error
