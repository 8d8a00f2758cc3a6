"""`forebay simulate` as it is said on the command line."""

import typer

from forebay.cli import simulate_options as its
from forebay.cli.options import OutputOption
from forebay.cli.output import Output
from forebay.cli.running import failures


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(simulate)


def simulate(
    files: its.FilesArgument,
    trace: its.TraceOption,
    service_time_s: its.ServiceTimeOption = "1",
    durations: its.DurationsOption = None,
    speed_up: its.SpeedUpOption = 1.0,
    repeat: its.RepeatOption = 1,
    evenly: its.EvenlyOption = False,
    duration_s: its.DurationOption = None,
    start: its.StartOption = its.EPOCH,
    startup_time_s: its.StartupTimeOption = "10",
    nodes: its.NodesOption = None,
    gpus_per_node: its.GpusOption = 0,
    slots: its.SlotsOption = 2,
    latency_target_s: its.LatencyTargetOption = 1.0,
    seed: its.SeedOption = 0,
    jobs: its.JobsOption = None,
    plot: its.PlotOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Try scaling policies on recorded arrivals, without a mesh.

    The autoscaler's own decisions and placement, on a virtual clock. Every function of a trace
    becomes a deployment like the file's. Several files are compared side by side.
    """
    from forebay.cli import simulate as command

    options = command.Options(
        files=tuple(files),
        trace=trace,
        service_time_s=service_time_s,
        durations=durations,
        speed_up=speed_up,
        repeat=repeat,
        evenly=evenly,
        duration_s=duration_s,
        begun_s=start.replace(tzinfo=its.EPOCH.tzinfo).timestamp(),
        startup_time_s=startup_time_s,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        slots=slots,
        latency_target_s=latency_target_s,
        seed=seed,
        jobs=jobs,
        plot=plot,
    )
    with failures():
        command.run(options, output)
