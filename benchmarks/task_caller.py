"""A caller of its own process: maps over many items, so that its memory is the client's alone.

    python -m benchmarks.task_caller ADDRESS trivial 100000
    python -m benchmarks.task_caller ADDRESS files 20000 32

Prints one line of JSON.
"""

import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import forebay

IN_FLIGHT = 2000
HEAD_BYTES = 4096


def contents() -> list[bytes]:
    """Heads of real files: this Python's own library, its sources and its compiled modules."""
    root = Path(json.__file__).parents[1]
    paths = itertools.islice((p for p in sorted(root.rglob("*.*")) if p.is_file()), 1000)
    return [path.read_bytes()[:HEAD_BYTES] for path in paths]


def items(kind: str, count: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """One input for each inference."""
    if kind == "trivial":
        same = np.zeros(128, np.uint8)
        for _ in range(count):
            yield {"INPUT": same}
        return
    heads = contents()
    for index in range(count):
        yield {"CONTENT": np.array([[heads[index % len(heads)]]], dtype=object)}


def main() -> None:
    """Maps, and says how long it took and how much memory it needed."""
    address, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    batch_size = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    deployment = "size" if kind == "trivial" else "file-type"
    done = 0
    with forebay.Client(address) as client:
        began_s = time.monotonic()
        results = client.map(
            deployment,
            items(kind, count),
            batch_size=batch_size,
            max_in_flight=IN_FLIGHT,
            result_ttl_s=600,
        )
        for result in results:
            done += 1
            assert len(result)
        elapsed_s = time.monotonic() - began_s
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {"items": done, "elapsed_s": elapsed_s, "rss_bytes": peak_kib * 1024}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
