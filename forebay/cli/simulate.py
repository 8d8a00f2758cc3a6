"""`forebay simulate`: deployment files on recorded arrivals, compared."""

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay import deployment_file
from forebay.cli import simulate_report as report
from forebay.cli.failure import FAILED, USAGE, CliError
from forebay.cli.output import Output, print_json, print_table, progress, say
from forebay.deployment_file import DeploymentFileError, DeploymentSpec
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import Policy
from services.autoscaler.simulation.ownership import InvariantError
from services.autoscaler.simulation.pulse import Pulse
from services.autoscaler.simulation.replaying import Setting, no_place, nodes_alike, replay
from services.autoscaler.simulation.service_times import ServiceTimes, log_normal
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.traces import (
    Key,
    Trace,
    TraceError,
    durations_of,
    trace_of,
)

MAX_TIME_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was said on the command line."""

    files: tuple[Path, ...]
    trace: Path
    service_time_s: str
    durations: Path | None
    speed_up: float
    repeat: int
    evenly: bool
    duration_s: float | None
    begun_s: float
    startup_time_s: str
    nodes: int | None
    gpus_per_node: int
    slots: int
    latency_target_s: float
    seed: int
    jobs: int | None
    plot: Path | None


def run(options: Options, output: Output) -> None:
    """Simulates and prints.

    Raises:
        CliError: if a file or an option is wrong.
    """
    draw = _drawing() if options.plot is not None else None
    declared = _declared(options.files)
    try:
        trace = trace_of(_lines(options.trace), str(options.trace))
        services = _services(options)
    except TraceError as error:
        raise CliError(str(error), USAGE) from None
    duration_s = options.duration_s or _length_s(trace, options)
    results: dict[str, report.Result] = {}
    with progress() as tell:
        for name, deployment in declared.items():
            tell(f"simulating {name}")

            def told(share: float, name: str = name) -> None:
                tell.tick(f"simulating {name}: {share:.0%}")

            setting = _setting(options, trace, services, duration_s, deployment)
            try:
                tally = replay(deployment, setting, options.jobs, told)
            except InvariantError as error:
                raise CliError(
                    f"the simulated autoscaler did what it must never do: {error}. Please report "
                    "this with the files that were used.",
                    FAILED,
                ) from None
            results[name] = report.result_of(
                tally, duration_s, options.latency_target_s, no_place(deployment, setting.nodes)
            )
    if draw is not None and options.plot is not None:
        draw(results, duration_s, options.plot)
    for name, result in results.items():
        if result.no_place:
            say(f"{name}: no replica can ever have a place on these nodes: {result.no_place}")
    if output is Output.JSON:
        print_json(report.plain(results, duration_s, options.latency_target_s))
    else:
        print_table(*report.table(results, options.latency_target_s))


def _drawing() -> Callable[[Mapping[str, report.Result], float, Path], None]:
    """Found before anything is simulated: that may take a while."""
    try:
        from forebay.cli import simulate_plot
    except ImportError as error:
        raise CliError(
            f"--plot needs matplotlib ({error}): pip install 'forebay[plot]', or leave it out.",
            USAGE,
        ) from None
    return simulate_plot.draw


def _declared(files: tuple[Path, ...]) -> dict[str, Deployment]:
    """The deployments by the names under which they are compared."""
    found: dict[str, Deployment] = {}
    for path in files:
        spec = _spec(path)
        deployment = spec.to_proto("")
        deployment.generation = 1
        name = spec.name if spec.name not in found else str(path)
        if name in found:
            raise CliError(f"{path} is named twice; leave one out", USAGE)
        found[name] = deployment
    return found


def _spec(path: Path) -> DeploymentSpec:
    """What a file declares; the model that it names need not be there."""
    names = deployment_file.FILE_NAMES
    if path.is_dir():
        path = next((path / name for name in names if (path / name).is_file()), path / names[0])
    try:
        parsed = deployment_file.parse("\n".join(_lines(path)), str(path))
    except DeploymentFileError as error:
        raise CliError(str(error), USAGE) from None
    for note in parsed.notes:
        say(note)
    return parsed.spec


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not text in UTF-8: {error.reason}", USAGE) from None
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}", USAGE) from None


def _services(options: Options) -> dict[Key, ServiceTimes]:
    services: dict[Key, ServiceTimes] = {(): _times("--service-time-s", options.service_time_s)}
    if options.durations is not None:
        services |= durations_of(_lines(options.durations), str(options.durations))
    return services


def _times(flag: str, text: str) -> ServiceTimes:
    """A time, or two percentiles of times.

    Raises:
        CliError: if it is neither.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    legal = all(0 < value <= MAX_TIME_S for value in values)
    if legal and len(values) == 1:
        return ServiceTimes(values[0])
    if legal and len(values) == 2 and values[0] <= values[1]:
        return log_normal(values[0], values[1])
    raise CliError(
        f"{flag} = {text!r}: it must be seconds above 0 up to {MAX_TIME_S:g}, such as 0.5, or the "
        "50th and the 95th percentile, such as 0.5,2",
        USAGE,
    )


def _startup(text: str) -> StartupModel:
    if text.strip() in ("0", "0.0"):
        return StartupModel(0.0)
    times = _times("--startup-time-s", text)
    p95_s = float(text.split(",")[1]) if times.sigma else None
    return StartupModel(times.median_s, p95_s)


def _length_s(trace: Trace, options: Options) -> float:
    """All of the trace, and a second more: so that the last request is part of it."""
    return math.floor(trace.duration_s * options.repeat / options.speed_up) + 1.0


def _setting(
    options: Options,
    trace: Trace,
    services: Mapping[Key, ServiceTimes],
    duration_s: float,
    deployment: Deployment,
) -> Setting:
    count = options.nodes or 0
    return Setting(
        trace=trace,
        duration_s=duration_s,
        services=services,
        startup=_startup(options.startup_time_s),
        nodes=nodes_alike(count, options.slots, options.gpus_per_node, deployment),
        speed_up=options.speed_up,
        repeat=options.repeat,
        evenly=options.evenly,
        seed=options.seed,
        pulse=Pulse(begun_s=options.begun_s),
        functions=_functions(deployment),
    )


def _functions(deployment: Deployment) -> dict[str, Any]:
    """The functions of custom policies, imported as the autoscaler does."""
    found: dict[str, Any] = {}
    for name in _custom_names(deployment.scaling.policy):
        module, _, function = name.partition(":")
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            found[name] = getattr(importlib.import_module(module), function)
        except Exception as error:  # noqa: BLE001, importing runs whatever the module says
            raise CliError(
                f"custom policy {name}: it cannot be imported from here: {error}", USAGE
            ) from None
    return found


def _custom_names(policy: Policy) -> list[str]:
    if policy.WhichOneof("kind") == "max_of":
        return [name for part in policy.max_of.policies for name in _custom_names(part)]
    return [policy.custom.function] if policy.WhichOneof("kind") == "custom" else []
