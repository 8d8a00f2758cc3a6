"""`forebay batch …`, as it is said on the command line."""

import typer

from forebay.cli import batch_options, tasks_options
from forebay.cli.options import NameArgument, RouterOption, StateDirOption
from forebay.cli.output import Output
from forebay.cli.running import failures, where_of
from forebay.cli.running import run as run_command

app = typer.Typer(
    help="Run files of rows through a deployment.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    """Adds the commands."""
    parent.add_typer(app, name="batch")


@app.callback()
def _root() -> None:
    """Makes `run` a command of its own, though there is no other."""


@app.command()
def run(
    name: NameArgument,
    source: batch_options.SourceArgument,
    target: batch_options.TargetOption,
    errors: batch_options.ErrorsOption = None,
    batch_size: batch_options.BatchSizeOption = 1,
    max_in_flight: batch_options.InFlightOption = None,
    inputs: batch_options.ColumnsOption = None,
    only: batch_options.OnlyOption = None,
    keep: batch_options.KeepOption = None,
    resume: batch_options.ResumeOption = False,
    force: batch_options.ForceOption = False,
    batch: batch_options.BatchOption = None,
    start_timeout_s: batch_options.StartTimeoutOption = 300.0,
    priority: tasks_options.PriorityOption = tasks_options.Priority.NORMAL,
    labels: tasks_options.LabelsOption = None,
    max_retries: tasks_options.MaxRetriesOption = None,
    min_backoff_s: tasks_options.MinBackoffOption = None,
    attempt_timeout_s: tasks_options.AttemptTimeoutOption = None,
    ttl_s: tasks_options.TtlOption = None,
    result_ttl_s: tasks_options.ResultTtlOption = None,
    tenant: tasks_options.TenantOption = None,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: batch_options.FormatOption = Output.TABLE,
) -> None:
    """Run a file of rows through a deployment; answers come in the order of rows.

    Exit code 0 if every row succeeded, 1 if any failed: those are in the file of errors. A run that
    was interrupted or killed goes on with --resume.
    """
    from forebay.cli import batch_run as command
    from forebay.cli.tasks_words import task_options

    with failures():
        options = task_options(
            priority,
            labels,
            max_retries,
            min_backoff_s,
            attempt_timeout_s,
            ttl_s,
            result_ttl_s,
            None,
        )
    files = command.Files(source, target, errors, resume, force)
    rows = command.Rows(batch_size, max_in_flight, inputs or [], only or [], keep or [], batch)
    where = where_of(router=router, state_dir=state_dir)
    run_command(command.run(name, files, rows, options, start_timeout_s, tenant, where, output))
