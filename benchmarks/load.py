"""Drives a unary gRPC method with h2load, nghttp2's load generator, which is written in C.

A gRPC error is still HTTP 200, so what counts as an answer is told by the bytes that came back.
"""

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAX_CONNECTIONS = 8
TIMEOUT_S = 300.0


class NoLoadGeneratorError(Exception):
    """h2load is not on this machine."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the generator saw.

    Attributes:
        calls: how many were made.
        elapsed_s: how long they took together.
        latencies_us: of each, sorted.
        errors: calls without the expected answer.
    """

    calls: int
    elapsed_s: float
    latencies_us: list[int]
    errors: int


def find() -> str:
    """Path of h2load.

    Raises:
        NoLoadGeneratorError: if it is not on PATH.
    """
    path = shutil.which("h2load")
    if path is None:
        raise NoLoadGeneratorError(
            "the load generator h2load is missing: install Debian's or Ubuntu's package "
            "nghttp2-client (`sudo apt-get install nghttp2-client`)"
        )
    return path


def run(address: str, method: str, body: bytes, calls: int, concurrency: int, answer: int) -> Load:
    """Makes calls and waits for all of them.

    Args:
        address: `host:port` of the server.
        method: full path, such as `/package.Service/Method`.
        body: the serialised request.
        calls: how many to make.
        concurrency: how many at once, over at most 8 connections.
        answer: size of a good answer in bytes, serialised.
    """
    connections = min(concurrency, MAX_CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        data, log = Path(scratch) / "body", Path(scratch) / "log"
        data.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
        done = subprocess.run(
            [
                *(find(), "--data", str(data), "--requests", str(calls)),
                *("--clients", str(connections), "--threads", "1"),
                *("--max-concurrent-streams", str(concurrency // connections)),
                *("--window-bits", "24", "--connection-window-bits", "24"),
                *("--header", "content-type: application/grpc", "--header", "te: trailers"),
                *("--log-file", str(log), f"http://{address}{method}"),
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    elapsed, unit = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", done.stdout).groups()
    received = int(re.search(r"\((\d+)\) data", done.stdout).group(1))
    seconds = float(elapsed) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit]
    good = received // (answer + 5)
    return Load(calls, seconds, latencies, calls - min(calls, good))
