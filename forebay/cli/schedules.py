"""`forebay schedules …`: tasks by the clock, as they are said on the command line."""

import typer

from forebay.cli import schedule_options as its
from forebay.cli.options import (
    AutoscalerOption,
    OutputOption,
    RouterOption,
    StateDirOption,
)
from forebay.cli.output import Output
from forebay.cli.running import run, where_of
from forebay.cli.tasks_options import TenantOption

app = typer.Typer(
    help="Submit tasks by the clock.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    """Adds the commands."""
    parent.add_typer(app, name="schedules")


@app.command()
def create(
    name: its.ScheduleArgument,
    deployment: its.DeploymentArgument,
    when: its.WhenOption,
    file: its.FileArgument = None,
    timezone: its.TimezoneOption = "",
    inputs: its.InputsOption = None,
    missed: its.MissedOption = "skip",
    overlap: its.OverlapOption = "skip",
    paused: its.PausedOption = False,
    priority: its.PriorityOption = "normal",
    labels: its.LabelsOption = None,
    max_retries: its.RetriesOption = None,
    attempt_timeout_s: its.AttemptTimeoutOption = None,
    ttl_s: its.TtlOption = None,
    result_ttl_s: its.ResultTtlOption = None,
    callback_url: its.CallbackOption = None,
    router: RouterOption = None,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit a task to a deployment at every slot of a cron expression."""
    from forebay.cli import schedule_commands as command

    options = command.CreateOptions(
        when=when,
        timezone=timezone,
        file=file,
        inputs=tuple(inputs or ()),
        missed=missed,
        overlap=overlap,
        paused=paused,
        labels=tuple(labels or ()),
        task={
            "priority": priority,
            "max_retries": max_retries,
            "attempt_timeout_s": attempt_timeout_s,
            "ttl_s": ttl_s,
            "result_ttl_s": result_ttl_s,
            "callback_url": callback_url,
        },
    )
    where = where_of(router=router, autoscaler=autoscaler, state_dir=state_dir)
    run(command.create(name, deployment, options, where, tenant, output))


@app.command("list")
def list_all(
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List schedules with their next slot and what became of the last."""
    from forebay.cli import schedule_commands as command

    run(command.list_all(where_of(autoscaler=autoscaler, state_dir=state_dir), tenant, output))


@app.command()
def show(
    name: its.ScheduleArgument,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a schedule and its last runs."""
    from forebay.cli import schedule_commands as command

    run(command.show(name, where_of(autoscaler=autoscaler, state_dir=state_dir), tenant, output))


@app.command()
def pause(
    name: its.ScheduleArgument,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let slots pass without a task, until it is resumed."""
    from forebay.cli import schedule_commands as command

    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.set_paused(name, True, where, tenant, output))


@app.command()
def resume(
    name: its.ScheduleArgument,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Fire slots again, from the next one on."""
    from forebay.cli import schedule_commands as command

    where = where_of(autoscaler=autoscaler, state_dir=state_dir)
    run(command.set_paused(name, False, where, tenant, output))


@app.command()
def delete(
    name: its.ScheduleArgument,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a schedule; tasks it has submitted go on."""
    from forebay.cli import schedule_commands as command

    run(command.delete(name, where_of(autoscaler=autoscaler, state_dir=state_dir), tenant, output))


@app.command("run")
def run_now(
    name: its.ScheduleArgument,
    tenant: TenantOption = None,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit its task now, beside its slots."""
    from forebay.cli import schedule_commands as command

    run(command.run_now(name, where_of(autoscaler=autoscaler, state_dir=state_dir), tenant, output))
