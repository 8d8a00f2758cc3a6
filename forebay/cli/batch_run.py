"""`forebay batch run`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forebay import addresses, volumes
from forebay.batch_files import BatchFile, BatchRun, Summary
from forebay.batch_files.described import schema_at
from forebay.cli.failure import FAILED, USAGE, CliError
from forebay.cli.link import Where
from forebay.cli.output import Output, print_json, print_table, progress, say
from forebay.cli.tasks_show import client_of
from forebay.cli.tasks_words import told
from forebay.task_client.options import TaskOptions
from forebay.task_client.plan import MapOptions
from forebay.task_client.progress_bar import ProgressBar

DEFAULT_IN_FLIGHT = 1000
REQUESTS_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a run, as the command line names them."""

    source: str
    target: str
    errors: str | None
    resume: bool
    force: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """What is done with rows, as the command line says it.

    Attributes:
        batch_size: rows of a task.
        max_in_flight: rows under way; None leaves it to the command.
        inputs: NAME or NAME=COLUMN.
        only: wanted outputs.
        keep: columns copied into the answers.
        batch: id of the batch.
    """

    batch_size: int
    max_in_flight: int | None
    inputs: Sequence[str]
    only: Sequence[str]
    keep: Sequence[str]
    batch: str | None


async def run(
    name: str,
    files: Files,
    rows: Rows,
    options: TaskOptions,
    start_timeout_s: float,
    tenant: str | None,
    where: Where,
    output: Output,
) -> None:
    """Runs a file and prints how it went.

    Raises:
        CliError: if it cannot be run, or a row failed.
    """
    file = _batch_file(name, files, rows, options, where)
    with told():
        with progress(f"asking what {name} takes"):
            schema = await schema_at(
                where.address(addresses.ROUTER), name, timeout_s=start_timeout_s
            )
        async with client_of(where, tenant) as client:
            batch = BatchRun(client, file, schema)
            state = batch.state
            bar = ProgressBar(name, state.job.row_count, done=state.done, failed=state.failed)
            try:
                summary = await batch.run(bar.count)
            except BaseException:
                bar.close()
                if file.target.with_name(f"{file.target.name}.checkpoint").exists():
                    say(f"{batch.state.done} rows are done; --resume goes on from there")
                raise
            finally:
                bar.close()
    _print(summary, file, output)
    if summary.failed:
        raise CliError(
            f"{summary.failed} of {summary.row_count} rows failed: {file.errors} says why", FAILED
        )


def _batch_file(
    name: str, files: Files, rows: Rows, options: TaskOptions, where: Where
) -> BatchFile:
    source, target = _place(files.source, where), _place(files.target, where, writing=True)
    errors = target.with_suffix(".errors.jsonl")
    if files.errors is not None:
        errors = _place(files.errors, where, writing=True)
    if len({source, target, errors}) < 3:
        raise CliError(f"{source}, {target} and {errors} must be three different files", USAGE)
    if not target.parent.is_dir():
        raise CliError(f"there is no folder {target.parent} for {target.name}", USAGE)
    if files.resume and files.force:
        raise CliError("--resume goes on and --force begins again: give one of them", USAGE)
    in_flight = rows.max_in_flight or max(DEFAULT_IN_FLIGHT, REQUESTS_IN_FLIGHT * rows.batch_size)
    more: dict[str, Any] = {
        **options,
        "batch_size": rows.batch_size,
        "max_in_flight": in_flight,
        "outputs": list(rows.only) or None,
    }
    return BatchFile(
        deployment=name,
        source=source,
        target=target,
        errors=errors,
        batch=rows.batch,
        columns=_columns(rows.inputs),
        kept=rows.keep,
        resume=files.resume,
        force=files.force,
        options=cast(MapOptions, more),
    )


def _columns(given: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for word in given:
        name, _, column = word.partition("=")
        columns[name] = column
    if "" in columns.values() and len(columns) > 1:
        raise CliError(
            "--input NAME, without a column, gives it the whole row: no other --input then", USAGE
        )
    return columns


def _place(location: str, where: Where, writing: bool = False) -> Path:
    if not volumes.is_volume(location):
        return Path(location).absolute()
    try:
        return volumes.resolve(location, where.state_dir, writing=writing)
    except volumes.VolumeError as error:
        raise CliError(str(error.args[0]), USAGE) from None


def _print(summary: Summary, file: BatchFile, output: Output) -> None:
    succeeded = summary.row_count - summary.failed
    if output is Output.JSON:
        print_json(
            {
                "rows": summary.row_count,
                "succeeded": succeeded,
                "failed": summary.failed,
                "rows_done_in_this_run": summary.done_here,
                "rows_per_s": round(summary.rows_per_s, 1),
                "wall_s": round(summary.wall_s, 3),
                "batch": summary.batch,
                "out": str(file.target),
                "errors": str(file.errors) if summary.failed else None,
            }
        )
        return
    facts = [
        ("rows", str(summary.row_count)),
        ("succeeded", str(succeeded)),
        ("failed", str(summary.failed)),
        ("rows/s", f"{summary.rows_per_s:,.0f}"),
        ("wall time", f"{summary.wall_s:.1f} s"),
        ("batch", summary.batch),
        ("answers", str(file.target)),
    ]
    if summary.done_here != summary.row_count:
        facts.insert(3, ("done in this run", str(summary.done_here)))
    if summary.failed:
        facts.append(("errors", str(file.errors)))
    print_table(("", ""), facts)
    sys.stdout.flush()
