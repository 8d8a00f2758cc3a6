"""The agent's inventory in a process of its own, as only a new one loads a library from elsewhere.

    python -m tests.support.nvml_standin.inventory_process

Writes a line of JSON whenever it is asked by a line on its input: what a report would say. The line
that asks has the process ids of each replica, as JSON.
"""

import asyncio
import json
import sys
import time

import structlog
from google.protobuf.json_format import MessageToDict

from services.node_agent.inventory import GpuInventory

structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(30),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)


async def main() -> None:
    """Answers until its input ends."""
    ignored = frozenset(map(int, sys.argv[1:]))
    changes: list[float] = []
    gpus = GpuInventory(ignored_xids=ignored, changed=lambda: changes.append(time.monotonic()))
    await gpus.open()
    running = asyncio.create_task(gpus.run())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        started_s = time.monotonic()
        found = gpus.read(process_ids=json.loads(line))
        answer = {
            "read_s": time.monotonic() - started_s,
            "changed_s": changes[-1] if changes else 0.0,
            "message": found.message,
            "cannot_start": found.cannot_start,
            "used_bytes": dict(found.used_bytes),
            "unusable": gpus.unusable(),
            "watched": sorted(gpus.watched),
            "gpus": [MessageToDict(g, preserving_proto_field_name=True) for g in found.gpus],
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main())
