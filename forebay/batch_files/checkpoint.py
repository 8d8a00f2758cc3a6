"""How far a batch file has come, on disk: written after what it speaks of, and replaced whole.

A run that is killed at any point goes on from here: what was written behind the last checkpoint is
cut off, and its results are fetched again.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from forebay.batch_files.errors import BatchFileError
from forebay.batch_files.sources import Identity

VERSION = 1


@dataclass(frozen=True, slots=True)
class Job:
    """What must be the same for a run to go on.

    Attributes:
        deployment: that runs the rows.
        source: the input file, as it is named.
        size_bytes: of the input.
        digest: of the input.
        row_count: rows in it.
        batch_size: rows of a task.
        columns: column by input.
        kept: columns that go into the answers.
        outputs: wanted ones.
    """

    deployment: str
    source: str
    size_bytes: int
    digest: str
    row_count: int
    batch_size: int
    columns: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        """What tells the input from another file."""
        return Identity(self.size_bytes, self.digest, self.row_count)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a run has come.

    Attributes:
        job: what is run.
        batch: id of its batch.
        done: rows whose answer or error is written.
        failed: how many of them failed.
        answers: what the file of answers holds, as its sink counts it.
        errors_bytes: size of the file of errors.
        is_complete: whether all rows are written, and files only need their names.
    """

    job: Job
    batch: str
    done: int = 0
    failed: int = 0
    answers: int = 0
    errors_bytes: int = 0
    is_complete: bool = False


def path_for(target: Path) -> Path:
    """Where the checkpoint of a run to `target` is."""
    return target.with_name(f"{target.name}.checkpoint")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint; what it speaks of must be on disk."""
    text = json.dumps({"version": VERSION, **asdict(checkpoint)}, indent=1)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def load(path: Path) -> Checkpoint | None:
    """The checkpoint; None if there is none.

    Raises:
        BatchFileError: if what is there is no checkpoint of this version.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        found: dict[str, Any] = json.loads(text)
        if found.pop("version") != VERSION:
            raise ValueError("it is of another version of forebay")
        return Checkpoint(**{**found, "job": Job(**found["job"])})
    except (ValueError, KeyError, TypeError) as error:
        raise BatchFileError(
            f"{path} cannot be gone on with: {error}. Begin again with --force"
        ) from error


def check_same(begun: Checkpoint, wanted: Job) -> None:
    """Checks that a run which was begun is the one that is wanted.

    Raises:
        BatchFileError: if it is not; it says in what they differ.
    """
    same_file = replace(wanted, source=begun.job.source)
    if same_file == begun.job:
        return
    was, now = begun.job, wanted
    if was.identity != now.identity:
        raise BatchFileError(
            f"{now.source} is not the file that this run was begun with: it had {was.size_bytes} "
            f"bytes and {was.row_count} rows with digest {was.digest}, now {now.size_bytes} bytes, "
            f"{now.row_count} rows, {now.digest}. Put the file back, or begin again with --force"
        )
    for name, value in asdict(now).items():
        before = getattr(was, name)
        if name != "source" and value != before:
            raise BatchFileError(
                f"the run was begun with {name} = {before!r}, not {value!r}: go on with the same, "
                "or begin again with --force"
            )
