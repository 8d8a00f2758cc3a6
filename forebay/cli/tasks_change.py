"""`forebay tasks cancel`, `retry` and `purge`."""

from collections.abc import Sequence

from forebay.cli.failure import FAILED, CliError
from forebay.cli.link import Where
from forebay.cli.output import Output, count_of, print_json, print_table, say
from forebay.cli.tasks_show import Chosen, client_of, plain
from forebay.cli.tasks_words import failure_of, told
from forebay.errors import ForebayError

__all__ = ["Chosen", "cancel", "purge", "retry"]

_CANCELLED = "cancelled"


async def cancel(names: Sequence[str], tenant: str | None, where: Where, output: Output) -> None:
    """Ends tasks and says how each ended.

    Raises:
        CliError: if one cannot be cancelled, after the others were.
    """
    ended = []
    failed: list[ForebayError] = []
    with told():
        async with client_of(where, tenant) as client:
            for name in names:
                try:
                    ended.append(await client.task(name).cancel())
                except ForebayError as error:
                    failed.append(error)
    if output is Output.JSON:
        print_json([plain(status) for status in ended])
    else:
        for status in ended:
            late = "" if status.state == _CANCELLED else "; it had ended before"
            say(f"{status.deployment}/{status.id} is {status.state}{late}")
    _raise_first(failed, len(names))


async def retry(names: Sequence[str], tenant: str | None, where: Where, output: Output) -> None:
    """Submits failed tasks again and prints the new ones.

    Raises:
        CliError: if one cannot be tried again, after the others were.
    """
    made: list[tuple[str, str]] = []
    failed: list[ForebayError] = []
    with told():
        async with client_of(where, tenant) as client:
            for name in names:
                try:
                    task = client.task(name)
                    made.append((task.name, (await task.retry()).name))
                except ForebayError as error:
                    failed.append(error)
    if output is Output.JSON:
        print_json([{"retry_of": old, "name": new} for old, new in made])
    elif made:
        print_table(("FAILED TASK", "NEW TASK"), made)
    _raise_first(failed, len(names))


async def purge(
    chosen: Chosen, dry_run: bool, tenant: str | None, where: Where, output: Output
) -> None:
    """Forgets tasks and says how many.

    Raises:
        CliError: if they cannot be forgotten.
    """
    assert chosen.deployment is not None
    with told():
        async with client_of(where, tenant) as client:
            count = await client.purge_tasks(
                chosen.deployment, states=chosen.states, batch=chosen.batch, dry_run=dry_run
            )
    if output is Output.JSON:
        print_json({"purged_count": count, "dry_run": dry_run})
    else:
        said = "would be forgotten" if dry_run else "forgotten"
        say(f"{count_of(count, 'task')} {said}")


def _raise_first(failed: Sequence[ForebayError], count: int) -> None:
    if not failed:
        return
    first = failure_of(failed[0])
    if count == 1:
        raise first
    raise CliError(f"{len(failed)} of {count} tasks: {first}", FAILED)
