"""Calls through the router against the same calls to Triton directly, in one run on this machine.

A mesh and a Triton of its own, both with the model in `benchmarks/model`, are measured in turns, so
that what else the machine does hits both. Prints a table and writes benchmarks/out/dataplane.json.
"""

import asyncio
import json
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tritonclient.grpc import service_pb2

from benchmarks import load
from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions
from services.node_agent.models.model_cache import build_repository
from services.node_agent.triton.triton_home import TritonHome
from services.node_agent.triton.triton_process import TritonProcess, remove_shared_memory

HERE = Path(__file__).parent
METHOD = "/inference.GRPCInferenceService/ModelInfer"
PAYLOADS_BYTES = (128, 600 * 1024)
CONCURRENCIES = (1, 16, 64)
SERVICES = {"router": "router", "autoscaler": "autoscaler", "metrics": "metrics"} | {
    "node_agent": "node-1"
}
ANY_PORT = "127.0.0.1:0"
REPLICA_ID = "benchmark"

console = Console(stderr=True, width=130)


@dataclass(slots=True)
class Way:
    """One way to the model, and what was seen on it.

    Attributes:
        name: direct or forebay.
        address: `host:port`.
        rates: requests per second of each round, by cell.
        latencies_us: of every call, by cell.
        errors: by cell.
    """

    name: str
    address: str
    rates: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    latencies_us: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    errors: dict[tuple[int, int], int] = field(default_factory=dict)


def request(payload_bytes: int) -> bytes:
    """A serialised request with that many bytes in its tensor."""
    made = service_pb2.ModelInferRequest(model_name="size")
    made.inputs.add(name="INPUT", datatype="UINT8", shape=[payload_bytes])
    made.raw_input_contents.append(bytes(payload_bytes))
    return made.SerializeToString()


def answer_size(address: str, body: bytes, payload_bytes: int) -> int:
    """Size of a good answer; checks that it is one."""
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary(METHOD)(body, timeout=30)
    said = service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]
    if int.from_bytes(said, "little") != payload_bytes:
        raise RuntimeError(f"{address} answered {said!r} to {payload_bytes} bytes")
    return len(answer)


def measure(path: Way, payload_bytes: int, concurrency: int, seconds: float) -> None:
    """One round of one cell on one path."""
    body = request(payload_bytes)
    answer = answer_size(path.address, body, payload_bytes)
    trial = load.run(path.address, METHOD, body, 10 * concurrency + 50, concurrency, answer)
    calls = max(200, int(seconds * trial.calls / trial.elapsed_s))
    seen = load.run(path.address, METHOD, body, calls, concurrency, answer)
    cell = (payload_bytes, concurrency)
    path.rates.setdefault(cell, []).append(seen.calls / seen.elapsed_s)
    path.latencies_us.setdefault(cell, []).extend(seen.latencies_us)
    path.errors[cell] = path.errors.get(cell, 0) + seen.errors + trial.errors


def resident(mesh: LocalMesh) -> dict[str, int]:
    """Resident memory of each service in bytes."""
    pids = {name: mesh.pid(process) for name, process in SERVICES.items()}
    return {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items() if pid}


def start_triton(directory: Path, home_directory: Path) -> TritonProcess:
    """A Triton of the benchmark's own, started as an agent starts one."""
    home = TritonHome.open(home_directory, directory)
    build_repository(HERE / "model" / "model", directory / "repository", "size")
    return TritonProcess.start(home, directory, REPLICA_ID, "size", home.base_environment, [])


def rows(path: Way) -> list[dict[str, Any]]:
    """What was seen on a path, a row per cell."""
    found = []
    for (payload_bytes, concurrency), rates in path.rates.items():
        latencies = sorted(path.latencies_us[payload_bytes, concurrency])
        found.append(
            {
                "path": path.name,
                "payload_bytes": payload_bytes,
                "concurrency": concurrency,
                "requests_per_s": round(statistics.median(rates), 1),
                "p50_ms": round(latencies[len(latencies) // 2] / 1000, 3),
                "p99_ms": round(latencies[int(len(latencies) * 0.99)] / 1000, 3),
                "errors": path.errors[payload_bytes, concurrency],
            }
        )
    return found


def show(result: dict[str, Any]) -> None:
    """Prints the tables."""
    table = Table(title="Through Forebay against Triton directly, same machine, in turns")
    for column in ("payload", "callers", "direct/s", "forebay/s", "ratio", "direct p50", "p99"):
        table.add_column(column, justify="right")
    for column in ("forebay p50", "p99", "p50 added", "errors"):
        table.add_column(column, justify="right")
    by_cell: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for row in result["runs"]:
        by_cell.setdefault((row["payload_bytes"], row["concurrency"]), {})[row["path"]] = row
    for (payload_bytes, concurrency), pair in by_cell.items():
        direct, through = pair["direct"], pair["forebay"]
        table.add_row(
            f"{payload_bytes} B" if payload_bytes < 1024 else f"{payload_bytes // 1024} KiB",
            f"{concurrency}",
            f"{direct['requests_per_s']:.0f}",
            f"{through['requests_per_s']:.0f}",
            f"{through['requests_per_s'] / direct['requests_per_s']:.0%}",
            *(f"{row[key]:.2f} ms" for row in (direct, through) for key in ("p50_ms", "p99_ms")),
            f"{through['p50_ms'] - direct['p50_ms']:.2f} ms",
            f"{direct['errors'] + through['errors']}",
        )
    console.print(table)
    memory = Table(title="Resident memory, MB")
    for column in ("service", "idle", "loaded", f"after {result['small_calls']} calls", "grown"):
        memory.add_column(column, justify="right")
    for name in SERVICES:
        idle, loaded = result["rss_idle_bytes"][name], result["rss_bytes"][name]
        before, after = result["rss_before_bytes"][name], result["rss_after_bytes"][name]
        figures = (idle, loaded, after, after - before)
        memory.add_row(name, *(f"{figure / 1e6:.1f}" for figure in figures))
    console.print(memory)


async def run(rounds: int, seconds: float, small_calls: int) -> dict[str, Any]:
    """Measures everything; leaves nothing running."""
    home = triton_setup.default_home()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        own = Path(scratch) / "triton"
        own.mkdir()
        options = MeshOptions(
            state_dir=Path(scratch) / "state",
            triton_home=home,
            slots=1,
            router=ANY_PORT,
            autoscaler=ANY_PORT,
            metrics=ANY_PORT,
            metrics_http=ANY_PORT,
        )
        triton = await asyncio.to_thread(start_triton, own, home)
        try:
            async with LocalMesh(options) as mesh:
                await triton.wait_listening(60)
                await _deploy(mesh)
                direct = Way("direct", triton.address)
                through = Way("forebay", mesh.addresses.router)
                return await asyncio.to_thread(
                    _measure_all, mesh, direct, through, rounds, seconds, small_calls
                )
        finally:
            await triton.stop(graceful=False)
            remove_shared_memory(REPLICA_ID)


async def _deploy(mesh: LocalMesh) -> None:
    program = ("-m", "forebay.cli.main", "deploy", str(HERE / "model"))
    addresses = ("--autoscaler", mesh.addresses.autoscaler, "--metrics", mesh.addresses.metrics)
    process = await asyncio.create_subprocess_exec(sys.executable, *program, *addresses)
    if await process.wait():
        raise RuntimeError("the benchmark's model could not be deployed")


def _measure_all(
    mesh: LocalMesh, direct: Way, through: Way, rounds: int, seconds: float, small_calls: int
) -> dict[str, Any]:
    idle = resident(mesh)
    loaded = dict(idle)
    cells = [(p, c) for p in PAYLOADS_BYTES for c in CONCURRENCIES]
    with Progress(console=console, transient=True) as progress:
        turn = progress.add_task("measuring", total=rounds * len(cells))
        for _ in range(rounds):
            for payload_bytes, concurrency in cells:
                for path in (direct, through):
                    measure(path, payload_bytes, concurrency, seconds)
                loaded = {n: max(loaded[n], rss) for n, rss in resident(mesh).items()}
                progress.advance(turn)
        progress.add_task(f"{small_calls} small calls", total=None)
        before = resident(mesh)
        body = request(PAYLOADS_BYTES[0])
        answer = answer_size(through.address, body, PAYLOADS_BYTES[0])
        many = load.run(through.address, METHOD, body, small_calls, CONCURRENCIES[-1], answer)
        after = resident(mesh)
    return {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "runs": rows(direct) + rows(through),
        "rss_bytes": {name: max(loaded[name], after[name]) for name in SERVICES},
        "rss_idle_bytes": idle,
        "rss_before_bytes": before,
        "rss_after_bytes": after,
        "small_calls": small_calls,
        "small_calls_errors": many.errors,
    }


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every cell.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one turn.")] = 2.0,
    small_calls: Annotated[
        int, typer.Option(min=100, help="Small calls in a row, to see whether memory grows.")
    ] = 100_000,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = (
        HERE / "out" / "dataplane.json"
    ),
) -> None:
    """Measures calls through the router against calls to Triton directly."""
    try:
        load.find()
    except load.NoLoadGeneratorError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    result = asyncio.run(run(rounds, seconds, small_calls))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    console.print(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
