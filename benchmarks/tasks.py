"""Tasks on this machine: how fast they are stored, run and mapped over.

A mesh of its own with the model in `benchmarks/model` and with examples/file-type. What is sent to
Triton directly goes to the same Triton, in turns. Prints a table and writes
benchmarks/out/tasks.json.
"""

import asyncio
import json
import os
import platform
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import grpc.aio
import numpy as np
import psutil
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tritonclient.grpc import service_pb2

from benchmarks import dataplane, load, task_caller, task_load
from forebay import tensors
from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions
from services.wire.channels import CHANNEL_OPTIONS

HERE = Path(__file__).parent
ROOT = HERE.parent
BATCH_SIZE = 32
DIRECT_CALLERS = 8
ANY_PORT = "127.0.0.1:0"

console = Console(stderr=True, width=130)


async def run(counts: dict[str, int], rounds: int) -> dict[str, Any]:
    """Measures everything; leaves nothing running."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        state = Path(scratch) / "state"
        options = MeshOptions(
            state_dir=state,
            triton_home=triton_setup.default_home(),
            slots=2,
            router=ANY_PORT,
            autoscaler=ANY_PORT,
            metrics=ANY_PORT,
            metrics_http=ANY_PORT,
        )
        async with LocalMesh(options) as mesh:
            with Progress(console=console, transient=True) as progress:
                return await _measure(mesh, state, counts, rounds, progress)


async def _measure(
    mesh: LocalMesh, state: Path, counts: dict[str, int], rounds: int, progress: Progress
) -> dict[str, Any]:
    router = mesh.addresses.router
    small = await _small(mesh, state, counts, rounds, progress)
    console.print(small)
    progress.add_task(f"map over {counts['map_items']} items", total=None)
    mapped = await _call(router, "trivial", counts["map_items"])
    console.print(mapped)
    await _forebay(mesh, "delete", "size")
    progress.add_task("file-type: in batches, and straight to its Triton", total=None)
    await _forebay(mesh, "deploy", _file_type(Path(state).parent))
    triton = _triton(state, "file-type")
    batched: list[float] = []
    direct: list[float] = []
    await _call(router, "files", counts["batched_items"] // 4, BATCH_SIZE)
    for _ in range(rounds):
        one = await _call(router, "files", counts["batched_items"], BATCH_SIZE)
        batched.append(one["items"] / one["elapsed_s"])
        direct.append(await direct_batches(triton, counts["batched_items"]))
    console.print({"in batches": batched, "directly": direct})
    progress.add_task(f"a file of {counts['batch_rows']} rows", total=None)
    wall_s = await _batch_file(mesh, Path(state).parent, counts["batch_rows"])
    return {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        **small,
        "map_items": mapped["items"],
        "map_items_per_s": round(mapped["items"] / mapped["elapsed_s"], 1),
        "map_batched_items_per_s": round(statistics.median(batched), 1),
        "direct_batched_items_per_s": round(statistics.median(direct), 1),
        "map_batched_ratio": round(statistics.median(batched) / statistics.median(direct), 3),
        "rss_client_bytes": mapped["rss_bytes"],
        "batch_rows": counts["batch_rows"],
        "batch_wall_s": round(wall_s, 2),
    }


async def _small(
    mesh: LocalMesh, state: Path, counts: dict[str, int], rounds: int, progress: Progress
) -> dict[str, float]:
    """The least a task can cost."""
    router = mesh.addresses.router
    await _forebay(mesh, "deploy", HERE / "model")
    triton = _triton(state, "size")
    body = dataplane.request(128)
    answer = dataplane.answer_size(triton, body, 128)
    stored: list[float] = []
    completed: list[float] = []
    straight: list[float] = []
    progress.add_task(f"{counts['tasks']} tasks", total=None)
    for _ in range(rounds):
        await _forebay(mesh, "scale", "size", "0")
        await asyncio.to_thread(_until_gone, state, "size")
        batch = f"stored-{secrets.token_hex(4)}"
        elapsed_s = await task_load.submit(router, "size", batch, counts["tasks"])
        stored.append(counts["tasks"] / elapsed_s)
        await _forebay(mesh, "scale", "size", "1")
        await task_load.until_ended(router, "size", batch, counts["tasks"])
        batch = f"completed-{secrets.token_hex(4)}"
        elapsed_s = await task_load.complete(router, "size", batch, counts["tasks"])
        completed.append(counts["tasks"] / elapsed_s)
        triton = _triton(state, "size")
        seen = await asyncio.to_thread(
            load.run, triton, dataplane.METHOD, body, 2 * counts["tasks"], 64, answer
        )
        straight.append(seen.calls / seen.elapsed_s)
    return {
        "submit_per_s": round(statistics.median(stored), 1),
        "complete_per_s": round(statistics.median(completed), 1),
        "direct_per_s": round(statistics.median(straight), 1),
    }


async def direct_batches(address: str, count: int) -> float:
    """Items per second when the same batches go to Triton itself, a few at a time."""
    heads = task_caller.contents()
    infer = "/inference.GRPCInferenceService/ModelInfer"
    bodies = []
    for first in range(0, count, BATCH_SIZE):
        batch = [heads[i % len(heads)] for i in range(first, min(first + BATCH_SIZE, count))]
        made = service_pb2.ModelInferRequest(model_name="file-type")
        made.inputs.add(name="CONTENT", datatype="BYTES", shape=[len(batch), 1])
        made.raw_input_contents.append(tensors.encode(_column(batch))[2])
        bodies.append(made.SerializeToString())
    left = iter(bodies)
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary(infer)

        async def caller() -> None:
            for body in left:
                await call(body, timeout=60)

        began_s = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(DIRECT_CALLERS)))
        return count / (time.monotonic() - began_s)


def _column(batch: list[bytes]) -> NDArray[np.object_]:
    column = np.empty((len(batch), 1), dtype=object)
    column[:, 0] = batch
    return column


async def _call(router: str, kind: str, count: int, batch_size: int = 1) -> dict[str, Any]:
    """A caller in a process of its own."""
    words = (router, kind, str(count), str(batch_size))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.task_caller", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the caller of {count} items failed")
    found: dict[str, Any] = json.loads(said)
    if found["items"] != count:
        raise RuntimeError(f"{found['items']} of {count} items came back")
    return found


async def _batch_file(mesh: LocalMesh, scratch: Path, rows: int) -> float:
    """`forebay batch run` over a file of that many rows; returns the time in seconds."""
    heads = [head.decode(errors="replace")[:512] for head in task_caller.contents()]
    source, target = scratch / "rows.jsonl", scratch / "answers.jsonl"
    with source.open("w") as file:
        for index in range(rows):
            file.write(json.dumps({"CONTENT": [heads[index % len(heads)]]}) + "\n")
    began_s = time.monotonic()
    await _forebay(
        mesh, "batch", "run", "file-type", source, "-o", target, "--batch-size", str(BATCH_SIZE)
    )
    elapsed_s = time.monotonic() - began_s
    with target.open() as file:
        answered = sum(1 for _ in file)
    if answered != rows:
        raise RuntimeError(f"{answered} of {rows} rows were answered")
    return elapsed_s


def _file_type(scratch: Path) -> Path:
    """The example with one replica that stays."""
    example = ROOT / "examples" / "file-type"
    file = scratch / "file-type.yaml"
    declared = {
        "name": "file-type",
        "model": str(example / "model"),
        "replicas": 1,
        "max_ongoing_requests": 8,
        "request_timeout_s": 60,
    }
    # JSON is YAML.
    file.write_text(json.dumps(declared))
    return file


def _triton(state: Path, deployment: str) -> str:
    """Where the Triton of the one replica of a deployment listens."""
    for record in state.glob(f"**/replicas/{deployment}-*/process.json"):
        said = json.loads(record.read_text())
        return f"127.0.0.1:{said['port']}"
    raise RuntimeError(f"{deployment} has no replica")


def _until_gone(state: Path, deployment: str) -> None:
    while any(state.glob(f"**/replicas/{deployment}-*/process.json")):
        time.sleep(0.05)


async def _forebay(mesh: LocalMesh, *words: str | Path) -> None:
    at = mesh.addresses
    addresses = {
        "FOREBAY_ROUTER": at.router,
        "FOREBAY_AUTOSCALER": at.autoscaler,
        "FOREBAY_METRICS": at.metrics,
    }
    program = (sys.executable, "-m", "forebay.cli.main", *map(str, words))
    process = await asyncio.create_subprocess_exec(
        *program,
        env={**os.environ, **addresses},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"forebay {' '.join(map(str, words))}: {said.decode()}")


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    table = Table(title="Tasks, submitted, run and mapped over")
    table.add_column("what")
    table.add_column("seen", justify="right")
    for what, seen in (
        ("stored on disk", f"{result['submit_per_s']:.0f}/s"),
        ("completed, one replica", f"{result['complete_per_s']:.0f}/s"),
        ("the same model called directly", f"{result['direct_per_s']:.0f}/s"),
        (f"map over {result['map_items']} items", f"{result['map_items_per_s']:.0f}/s"),
        ("memory of that caller", f"{result['rss_client_bytes'] / 1e6:.0f} MB"),
        ("file-type, map in batches", f"{result['map_batched_items_per_s']:.0f}/s"),
        ("the same batches, directly", f"{result['direct_batched_items_per_s']:.0f}/s"),
        ("ratio of the two", f"{result['map_batched_ratio']:.0%}"),
        (f"a file of {result['batch_rows']} rows", f"{result['batch_wall_s']:.1f} s"),
    ):
        table.add_row(what, seen)
    console.print(table)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of everything small.")] = 3,
    tasks: Annotated[int, typer.Option(min=100, help="Tasks of one turn.")] = 5_000,
    map_items: Annotated[int, typer.Option(min=100, help="Items to map over.")] = 100_000,
    batched_items: Annotated[int, typer.Option(min=64, help="Files of one turn.")] = 3_200,
    batch_rows: Annotated[int, typer.Option(min=10, help="Rows of the batch file.")] = 10_000,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = HERE / "out" / "tasks.json",
) -> None:
    """Measures tasks."""
    try:
        load.find()
    except load.NoLoadGeneratorError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    counts = {
        "tasks": tasks,
        "map_items": map_items,
        "batched_items": batched_items,
        "batch_rows": batch_rows,
    }
    result = asyncio.run(run(counts, rounds))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    console.print(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
