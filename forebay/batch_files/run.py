"""A file of rows through a deployment: each row's answer in the order of the rows."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forebay.aio import AsyncClient
from forebay.batch_files import checkpoint as checkpoints
from forebay.batch_files.checkpoint import Checkpoint, Job
from forebay.batch_files.errors import BatchFileError
from forebay.batch_files.rows import Row, RowCodec
from forebay.batch_files.schema import ModelSchema
from forebay.batch_files.sinks import Lines, Sink, sink_of
from forebay.batch_files.sources import Source, source_of
from forebay.errors import ForebayError, TaskError
from forebay.inference import InferResult
from forebay.task_client.engine import InputRaised, MapEngine, Value
from forebay.task_client.plan import MapOptions, plan_of

SAVE_EVERY_S = 2.0
SAVE_EVERY_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFile:
    """What is to be run.

    Attributes:
        deployment: that runs the rows.
        source: the input: .jsonl, .ndjson or .parquet.
        target: where the answers go; it appears when all are there.
        errors: where rows that fail go; it appears only if there are any.
        batch: id of the batch; None makes a new one.
        columns: column by the input it is for; an input with an empty column takes the row itself.
        kept: columns of the input that go into the answers; `*` means all.
        resume: goes on with a run that did not end, or begins if there is none.
        force: begins, whatever is there.
        options: of the map and its tasks, such as `batch_size`, `max_in_flight` and `priority`.
    """

    deployment: str
    source: Path
    target: Path
    errors: Path
    batch: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()
    resume: bool = False
    force: bool = False
    options: MapOptions = field(default_factory=lambda: MapOptions())


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run has ended.

    Attributes:
        row_count: rows of the input.
        failed: rows that failed, those of runs before included.
        done_here: rows that this run did.
        wall_s: how long this run took.
        batch: id of the batch.
    """

    row_count: int
    failed: int
    done_here: int
    wall_s: float
    batch: str

    @property
    def rows_per_s(self) -> float:
        """Rows that this run did each second."""
        return self.done_here / self.wall_s if self.wall_s else 0.0


class BatchRun:
    """One run over a file."""

    def __init__(self, client: AsyncClient, file: BatchFile, schema: ModelSchema) -> None:
        """Looks at what is there; changes nothing on disk.

        Args:
            client: to the mesh.
            file: what to run.
            schema: of the deployment's model.

        Raises:
            BatchFileError: if it cannot be run as asked.
        """
        self._client = client
        self._file = file
        batch_size = file.options.get("batch_size", 1)
        schema.check(batch_size, file.options.get("outputs") or (), file.columns)
        self._codec = RowCodec(schema, file.columns, file.kept)
        self._batch_size = batch_size
        self._source: Source = source_of(file.source)
        self._sink: Sink = sink_of(file.target)
        self._errors = Lines(file.errors)
        self._saved_to = checkpoints.path_for(file.target)
        self._rows: deque[Row] = deque()
        self._is_spoilt = False
        begun = self._begun()
        identity = self._source.identity()
        job = Job(
            file.deployment,
            str(file.source),
            identity.size_bytes,
            identity.digest,
            identity.row_count,
            batch_size,
            dict(file.columns),
            list(file.kept),
            list(file.options.get("outputs") or ()),
        )
        if begun is not None:
            checkpoints.check_same(begun, job)
            if file.batch not in (None, begun.batch):
                raise BatchFileError(
                    f"the run was begun as batch {begun.batch!r}, not {file.batch!r}: leave "
                    "--batch out, or begin again with --force"
                )
        batch = begun.batch if begun else file.batch
        # Rows of one task go together: begin with the first of the task that holds the next row.
        self._first = (begun.done if begun else 0) // batch_size * batch_size
        self._plan = plan_of(file.deployment, batch, file.options, self._first)
        self._plan = replace(
            self._plan, ordered=True, encode=self._encode, resumes=batch is not None
        )
        self.state = begun or Checkpoint(job, self._plan.batch)
        """How far it has come."""

    async def run(self, each: Callable[[bool], None] = lambda failed: None) -> Summary:
        """Runs it to the end.

        Args:
            each: called for each row that is done, with whether it failed.

        Raises:
            ForebayError: if the mesh cannot be reached for too long, or a file not be written.
        """
        began_s = time.monotonic()
        done_before = self.state.done
        if not self.state.is_complete:
            self._open()
            engine = self._client.engine(self._plan, self._source.rows(self._first))
            try:
                await self._take_all(engine, each)
            except OSError as error:
                # What was written last may be cut off: the last checkpoint stands.
                self._is_spoilt = True
                raise _not_written(self._file.target, error) from error
            finally:
                await engine.close()
                self._close()
        self._sink.publish()
        if self.state.failed:
            self._errors.publish()
        else:
            self._errors.discard()
            # Of a run before, if this one was told to write over it.
            self._file.errors.unlink(missing_ok=True)
        self._saved_to.unlink(missing_ok=True)
        return Summary(
            self.state.job.row_count,
            self.state.failed,
            self.state.done - done_before,
            time.monotonic() - began_s,
            self.state.batch,
        )

    async def _take_all(self, engine: MapEngine, each: Callable[[bool], None]) -> None:
        saved_s, saved_done = time.monotonic(), self.state.done
        while taken := await engine.take():
            for position, value in taken:
                self._take(position, value, each)
            is_due = time.monotonic() - saved_s > SAVE_EVERY_S
            if is_due or self.state.done - saved_done >= SAVE_EVERY_ROWS:
                self._save()
                saved_s, saved_done = time.monotonic(), self.state.done
        self._save(is_complete=True)

    def _begun(self) -> Checkpoint | None:
        """The run to go on with, if any.

        Raises:
            BatchFileError: if there is something that must not be written over.
        """
        file = self._file
        if file.force:
            return None
        begun = checkpoints.load(self._saved_to)
        if begun is not None and not file.resume:
            raise BatchFileError(
                f"a run to {file.target} did not end ({begun.done} of {begun.job.row_count} rows): "
                "go on with --resume, or begin again with --force"
            )
        for path in (file.target, file.errors) if begun is None else ():
            if path.exists():
                raise BatchFileError(
                    f"{path} is there already: name another, or write over it with --force"
                )
        return begun

    def _open(self) -> None:
        try:
            self._sink.open(self.state.answers)
            self._errors.open(self.state.errors_bytes)
            # Before the first task: whoever goes on must know the batch.
            checkpoints.save(self._saved_to, self.state)
        except BaseException as error:
            self._sink.close()
            self._errors.close()
            if isinstance(error, OSError):
                raise _not_written(self._file.target, error) from error
            raise

    def _close(self) -> None:
        """Keeps what there is, also if the run is interrupted."""
        try:
            if not (self.state.is_complete or self._is_spoilt):
                self._save()
        finally:
            self._sink.close()
            self._errors.close()

    def _save(self, is_complete: bool = False) -> None:
        self.state = replace(
            self.state,
            answers=self._sink.flush(),
            errors_bytes=self._errors.flush(),
            is_complete=is_complete,
        )
        checkpoints.save(self._saved_to, self.state)

    def _encode(self, row: Row) -> Mapping[str, Any]:
        # In the order of positions, in which answers come too.
        self._rows.append(row)
        return self._codec.inputs_of(row)

    def _take(self, position: int, value: Value, each: Callable[[bool], None]) -> None:
        if isinstance(value, InputRaised):
            raise value.error
        row = self._rows.popleft()
        if position < self.state.done:
            # Written by a run before; it only shares a task with rows that are not.
            return
        error: Exception | None = None
        if isinstance(value, InferResult):
            try:
                self._sink.write(self._codec.answer_of(row, value))
            except ForebayError as failed:
                error = failed
        else:
            error = value
        if error is not None:
            self._errors.write(_error_row(row, error))
        self.state = replace(
            self.state, done=self.state.done + 1, failed=self.state.failed + (error is not None)
        )
        each(error is not None)


def _not_written(target: Path, error: OSError) -> BatchFileError:
    return BatchFileError(f"cannot write to {error.filename or target}: {error.strerror or error}")


def _error_row(row: Row, error: Exception) -> dict[str, Any]:
    """What the file of errors says of a row."""
    said = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    kind = type(error).__name__
    found = {"line": row.number, "kind": kind, "error": said, "row": row.as_it_was()}
    if isinstance(error, TaskError):
        found["task"] = error.task.name
    return found
