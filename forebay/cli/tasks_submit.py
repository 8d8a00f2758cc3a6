"""`forebay tasks submit`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forebay.cli import infer
from forebay.cli.failure import USAGE, CliError
from forebay.cli.link import Where
from forebay.cli.output import Output, count_of, print_json, print_table, progress, say
from forebay.cli.tasks_show import client_of, outputs_of
from forebay.cli.tasks_words import failure_of, told
from forebay.errors import ForebayError
from forebay.tasks import TaskOptions


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about the tasks.

    Attributes:
        files: a task for each.
        inputs: inputs of the one task, as NAME=VALUE.
        batch: the batch they belong to.
        idempotency_key: of the task; with several files each gets its position appended.
        wait: whether to wait for the results.
        options: of each task.
    """

    files: Sequence[Path]
    inputs: Sequence[str]
    batch: str | None = None
    idempotency_key: str | None = None
    wait: bool = False
    options: TaskOptions = field(default_factory=lambda: TaskOptions())


async def submit(name: str, asked: Asked, tenant: str | None, where: Where, output: Output) -> None:
    """Submits tasks and prints their names or, if that is asked for, their results.

    Raises:
        CliError: if one cannot be submitted, or has no result.
    """
    if bool(asked.files) == bool(asked.inputs):
        raise CliError("name files, or inputs with --input NAME=VALUE: one of the two", USAGE)
    metadata = await infer.model_metadata(name, where, None)
    jobs = _jobs(metadata, asked)
    key = asked.idempotency_key
    with told():
        async with client_of(where, tenant) as client:
            handles = [
                await client.submit(
                    name,
                    job.inputs,
                    batch=asked.batch,
                    idempotency_key=f"{key}-{position}" if key and len(jobs) > 1 else key,
                    **asked.options,
                )
                for position, job in enumerate(jobs)
            ]
            if not asked.wait:
                if output is Output.JSON:
                    print_json([{"name": handle.name} for handle in handles])
                else:
                    print_table(("TASK",), [(f"{name}/{handle.id}",) for handle in handles])
                    say(f"`forebay tasks result {name}/{handles[0].id}` waits for its result")
                return
            found: list[tuple[str, str, object]] = []
            failed: list[ForebayError] = []
            with progress(f"waiting for {count_of(len(handles), 'task')}"):
                for job, handle in zip(jobs, handles, strict=True):
                    try:
                        found.append((job.label, handle.name, outputs_of(await handle.result())))
                    except ForebayError as error:
                        failed.append(error)
    _print(found, output)
    if failed:
        raise failure_of(failed[0])


def _jobs(metadata: object, asked: Asked) -> list[infer.Job]:
    if asked.inputs:
        return [infer.one_job(metadata, None, asked.inputs)]
    return [infer.one_job(metadata, file, ()) for file in asked.files]


def _print(found: Sequence[tuple[str, str, object]], output: Output) -> None:
    if output is Output.JSON:
        print_json(
            [{"input": label, "name": name, "outputs": outputs} for label, name, outputs in found]
        )
    elif found:
        rows = []
        for label, name, outputs in found:
            assert isinstance(outputs, dict)
            said = ", ".join(f"{key}={value}" for key, value in outputs.items())
            rows.append((label, name.rpartition("/")[2], said))
        print_table(("INPUT", "TASK", "RESULT"), rows)
