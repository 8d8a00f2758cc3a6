"""The picture of `forebay simulate`; needs matplotlib, the extra `plot`."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from forebay.cli.failure import USAGE, CliError
from forebay.cli.simulate_report import Result

MINUTES_FROM_S = 600.0
HOURS_FROM_S = 4 * 3600.0


def draw(results: Mapping[str, Result], duration_s: float, path: Path) -> None:
    """Writes a PNG: replicas and arrivals over time, and the queue waits.

    Raises:
        CliError: if it cannot be written.
    """
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    replicas, arrivals, waits = figure.subplots(3, 1, height_ratios=(3, 2, 2))
    unit, unit_s = _unit(duration_s)
    for name, result in results.items():
        count = len(result.replicas)
        edges = [i * duration_s / count / unit_s for i in range(count + 1)]
        replicas.stairs(result.replicas, edges, label=name, linewidth=1.5)
        arrivals.stairs(result.arrivals_per_s, edges, color="grey", linewidth=1.0)
    replicas.set_ylabel("replicas")
    replicas.legend(loc="upper right")
    arrivals.set_ylabel("requests/s")
    arrivals.set_xlabel(unit)
    names = ["p50", "p95", "p99", "max"]
    width = 0.8 / len(results)
    for i, (name, r) in enumerate(results.items()):
        waits_s = [r.wait_p50_s, r.wait_p95_s, r.wait_p99_s, r.wait_max_s]
        values = [wait_s or 0.0 for wait_s in waits_s]
        places = [j + i * width for j in range(len(values))]
        waits.bar(places, values, width, label=name)
    waits.set_xticks([j + 0.4 - width / 2 for j in range(len(names))], names)
    waits.set_ylabel("queue wait, s")
    for axes in (replicas, arrivals, waits):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise CliError(f"--plot: cannot write {path}: {error.strerror}", USAGE) from None


def _unit(duration_s: float) -> tuple[str, float]:
    if duration_s >= HOURS_FROM_S:
        return "hours", 3600.0
    return ("minutes", 60.0) if duration_s >= MINUTES_FROM_S else ("seconds", 1.0)
