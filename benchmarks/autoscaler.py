"""The autoscaler and metrics at the size of a fleet, and cold starts on this machine.

Prints a table and writes benchmarks/out/autoscaler.json. The mesh of thousands of deployments is in
memory and changes as a busy one does; agents, streams, cold starts and Triton are real.
"""

import asyncio
import json
import logging
import platform
from pathlib import Path
from typing import Annotated, Any

import psutil
import structlog
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import reports, ticks, wakes

HERE = Path(__file__).parent
SIZES = (1_000, 3_000, 10_000)
DEPLOYMENTS_PER_NODE = 10
REPLICAS_PER_DEPLOYMENT = 2

console = Console(stderr=True, width=130)


async def run(
    tick_count: int, agents: int, report_seconds: float, wake_count: int, cold_starts: int
) -> dict[str, Any]:
    """Measures everything; leaves nothing running."""
    with Progress(console=console, transient=True) as progress:
        progress.add_task("ticking", total=None)
        meshes = [
            (size, size // DEPLOYMENTS_PER_NODE, size * REPLICAS_PER_DEPLOYMENT) for size in SIZES
        ]
        sized = await asyncio.to_thread(ticks.measure, meshes, tick_count)
        progress.add_task(f"{agents} agents reporting", total=None)
        reported = await asyncio.to_thread(reports.run, agents, report_seconds)
        woken = await wakes.measure(wake_count, cold_starts, progress)
    largest = sized[-1]
    return {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "deployments": largest.deployments,
        "nodes": largest.nodes,
        "replicas": largest.replicas,
        "tick_p50_s": round(largest.p50_s, 4),
        "tick_p99_s": round(largest.p99_s, 4),
        "rss_bytes": largest.rss_bytes,
        "sizes": [
            {
                "deployments": one.deployments,
                "nodes": one.nodes,
                "replicas": one.replicas,
                "tick_p50_s": round(one.p50_s, 4),
                "tick_p99_s": round(one.p99_s, 4),
            }
            for one in sized
        ],
        "wake_to_decision_p50_ms": _ms(woken.to_decision_s, 0.5),
        "wake_to_decision_p99_ms": _ms(woken.to_decision_s, 0.99),
        "wakes": len(woken.to_decision_s),
        "cold_start_p50_ms": _ms(woken.cold_start_s, 0.5),
        "cold_start_mesh_share_p50_ms": _ms(woken.mesh_share_s, 0.5),
        "cold_start_mesh_share_p99_ms": _ms(woken.mesh_share_s, 0.99),
        "cold_starts": len(woken.cold_start_s),
        "agents": agents,
        "reports_per_s": reported["reports_per_s"],
        "report_cpu_ratio": reported["report_cpu_ratio"],
        "metrics_rss_bytes": reported["rss_bytes"],
    }


def show(result: dict[str, Any]) -> None:
    """Prints the tables."""
    table = Table(title="Deciding and placing, one core, one tick a second")
    for column in ("deployments", "nodes", "replicas", "tick p50", "p99", "p50 per deployment"):
        table.add_column(column, justify="right")
    for one in result["sizes"]:
        table.add_row(
            *(f"{one[key]:,}" for key in ("deployments", "nodes", "replicas")),
            f"{one['tick_p50_s'] * 1000:.0f} ms",
            f"{one['tick_p99_s'] * 1000:.0f} ms",
            f"{one['tick_p50_s'] / one['deployments'] * 1e6:.0f} µs",
        )
    console.print(table)
    cold = Table(title="From zero, and agents reporting")
    cold.add_column("what")
    cold.add_column("p50", justify="right")
    cold.add_column("p99", justify="right")
    for what, key in (
        (f"request at zero to decision, {result['wakes']} wakes", "wake_to_decision"),
        (f"mesh's share of a cold start, {result['cold_starts']} starts", "cold_start_mesh_share"),
    ):
        cold.add_row(what, f"{result[f'{key}_p50_ms']:.0f} ms", f"{result[f'{key}_p99_ms']:.0f} ms")
    cold.add_row("whole cold start", f"{result['cold_start_p50_ms']:.0f} ms", "")
    console.print(cold)
    console.print(
        f"{result['agents']} agents: {result['reports_per_s']:.0f} reports/s cost metrics "
        f"{result['report_cpu_ratio']:.2f} of a core, {result['metrics_rss_bytes'] / 1e6:.0f} MB"
    )


def _ms(values: list[float], q: float) -> float:
    return round(wakes.quantile(values, q) * 1000, 1)


def main(
    tick_count: Annotated[int, typer.Option(min=10, help="Ticks measured at each size.")] = 100,
    agents: Annotated[int, typer.Option(min=1, help="Agents that report each second.")] = 1000,
    report_seconds: Annotated[float, typer.Option(min=1, help="How long they report.")] = 20.0,
    wake_count: Annotated[int, typer.Option(min=1, help="First requests at zero.")] = 50,
    cold_starts: Annotated[int, typer.Option(min=1, help="Of them answered by a Triton.")] = 10,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = (
        HERE / "out" / "autoscaler.json"
    ),
) -> None:
    """Measures the autoscaler and metrics at the size of a fleet."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    result = asyncio.run(run(tick_count, agents, report_seconds, wake_count, cold_starts))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    console.print(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
