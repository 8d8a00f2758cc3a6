"""The `forebay` command: what can be said on its command line.

Every command imports what it does when it runs: `--help` and shell completion stay quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from forebay.cli import (
    batch_commands,
    health,
    resource_commands,
    run_function,
    scaling_commands,
    schedules,
    simulate_command,
    tasks_commands,
    up_options,
)
from forebay.cli.options import (
    AutoscalerOption,
    MetricsOption,
    NameArgument,
    OptionalNameArgument,
    OutputOption,
    RouterOption,
    StateDirOption,
)
from forebay.cli.output import Output, print_json
from forebay.cli.running import failures, run, where_of
from services.runtime import ports

_HELP = (
    "Serverless inference on your own machines: a gRPC mesh in front of Triton.\n\n"
    "Two commands to the first inference: `forebay up`, then `forebay deploy` in another terminal."
)
_EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, "
    "4 the mesh cannot be reached, 130 interrupted."
)

app = typer.Typer(
    name="forebay",
    help=_HELP,
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command; ends the process."""
    with failures():
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        import forebay

        typer.echo(f"forebay {forebay.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Holds the options of `forebay` itself."""


@app.command()
def up(
    nodes: up_options.NodesOption = 1,
    slots: up_options.SlotsOption = 2,
    gpus_per_node: up_options.GpusOption = 0,
    simulated_gpus: up_options.SimulatedOption = False,
    gpu_product: up_options.ProductOption = None,
    node_provider: up_options.ProviderOption = "none",
    max_nodes: up_options.MaxNodesOption = None,
    autoscalers: up_options.AutoscalersOption = 1,
    policies_dir: up_options.PoliciesDirOption = None,
    callback_secret_file: up_options.CallbackSecretOption = None,
    callback_network: up_options.CallbackNetworkOption = None,
    volume: up_options.VolumeOption = None,
    state_dir: StateDirOption = None,
    router_address: up_options.RouterAddressOption = ports.ROUTER,
    autoscaler_address: up_options.AutoscalerAddressOption = ports.AUTOSCALER,
    metrics_address: up_options.MetricsAddressOption = ports.METRICS,
    metrics_http_address: up_options.MetricsHttpAddressOption = ports.METRICS_HTTP,
    ack_wait_s: up_options.AckWaitOption = None,
    log_level: up_options.LogLevelOption = "info",
    output: OutputOption = Output.TABLE,
) -> None:
    """Run the whole mesh on this machine, in the foreground, until Ctrl-C.

    Starts nats-server, metrics, autoscaler, router and node agents as processes of their own, and
    starts again whatever dies. Prepares Triton first if need be. Listens on loopback only, unless
    an address says otherwise.
    """
    from forebay import addresses
    from forebay.cli import up as command
    from forebay.local.programs import MeshOptions
    from forebay.local.triton_setup import default_home

    command.check_gpus(gpus_per_node, simulated_gpus, gpu_product)
    state_dir = (state_dir or addresses.default_state_dir()).absolute()
    options = MeshOptions(
        state_dir=state_dir,
        triton_home=default_home(),
        nodes=nodes,
        slots=slots,
        gpus_per_node=gpus_per_node,
        gpu_product=gpu_product,
        autoscalers=autoscalers,
        autoscaler_flags=command.autoscaler_flags(
            policies_dir, callback_secret_file, callback_network or []
        ),
        max_nodes=command.nodes_to_add(node_provider, max_nodes),
        volumes=command.volumes_of(volume or [], state_dir),
        router=router_address,
        autoscaler=autoscaler_address,
        metrics=metrics_address,
        metrics_http=metrics_http_address,
        ack_wait_s=ack_wait_s,
        log_level=log_level,
    )
    run(command.up(options, output))


@app.command()
def deploy(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="A deployment file or its directory, or a function as file.py:name.",
        ),
    ],
    wait: Annotated[bool, typer.Option(help="Wait until its replicas are ready.")] = True,
    timeout_s: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 300.0,
    autoscaler: AutoscalerOption = None,
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Deploy a model or function: upload it, create or update it, wait until it serves.

    A change of the model replaces the replicas one by one, without a gap.
    """
    from forebay.cli import deploy as command

    where = where_of(autoscaler=autoscaler, metrics=metrics, state_dir=state_dir)
    run(command.run(path, where, wait, timeout_s, output))


@app.command("list")
def list_deployments(
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the deployments."""
    from forebay.cli import show

    run(show.list_deployments(where_of(autoscaler=autoscaler, state_dir=state_dir), output))


@app.command()
def status(
    name: OptionalNameArgument = None,
    autoscaler: AutoscalerOption = None,
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how deployments are: replicas, queue, latency, and why something is not ready."""
    from forebay.cli import show

    where = where_of(autoscaler=autoscaler, metrics=metrics, state_dir=state_dir)
    run(show.status(name, where, output))


@app.command()
def infer(
    name: NameArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]...", help="Files, for a model with one BYTES input."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: a JSON array such as X='[[1, 2]]', or X=@file.npy. Repeatable.",
        ),
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds each request may take.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Repeating a request with the same key returns the first result."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show request ids and trace ids.")
    ] = False,
    router: RouterOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a deployment's model on files or arrays."""
    from forebay.cli import infer as command

    options = command.InferOptions(timeout_s, idempotency_key, verbose, output)
    where = where_of(router=router, state_dir=state_dir)
    run(command.run(name, files or [], inputs or [], where, options))


@app.command()
def delete(
    name: NameArgument,
    autoscaler: AutoscalerOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a deployment; its replicas finish what they have."""
    from forebay.cli import show

    run(show.delete(name, where_of(autoscaler=autoscaler, state_dir=state_dir), output))


@app.command()
def nodes(
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the nodes with what they have and run."""
    from forebay.cli import nodes as command

    run(command.nodes(where_of(metrics=metrics, state_dir=state_dir), output))


@app.command()
def logs(
    name: NameArgument,
    replica: Annotated[str | None, typer.Option(metavar="ID", help="Only this replica.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=1, max=10_000, help="Lines of the past.")
    ] = 100,
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print what the Tritons of a deployment write."""
    from forebay.cli import logs as command

    where = where_of(metrics=metrics, state_dir=state_dir)
    run(command.run(name, replica, follow, tail, where, output))


@app.command()
def setup(
    python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Python 3.11 or 3.12 that runs models.")
    ] = None,
    triton_home: Annotated[
        Path | None,
        typer.Option(envvar="FOREBAY_TRITON_HOME", help="Where to put Triton."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Prepare Triton for this machine, without root. `forebay up` does it by itself."""
    from forebay.cli import up as command

    command.set_up(triton_home.absolute() if triton_home else None, python, output)


@app.command()
def doctor(state_dir: StateDirOption = None, output: OutputOption = Output.TABLE) -> None:
    """Say what is missing on this machine, and how to get it."""
    from forebay.cli import doctor as command

    command.run(state_dir, output)


@app.command()
def demo(
    use_running: Annotated[
        bool, typer.Option("--use-running", help="Use the mesh that runs, instead of a new one.")
    ] = False,
    router: RouterOption = None,
    autoscaler: AutoscalerOption = None,
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a mesh, deploy a real model, run it on real files, stop everything."""
    from forebay.cli import demo as command
    from forebay.cli.link import Where

    run(command.run(use_running, Where(router, autoscaler, metrics, state_dir), output))


@app.command()
def schema() -> None:
    """Print the JSON Schema of deployment files, for editors."""
    from forebay import deployment_schema

    print_json(deployment_schema.schema())


batch_commands.register(app)
health.register(app)
resource_commands.register(app)
run_function.register(app)
scaling_commands.register(app)
schedules.register(app)
simulate_command.register(app)
tasks_commands.register(app)


if __name__ == "__main__":
    main()
