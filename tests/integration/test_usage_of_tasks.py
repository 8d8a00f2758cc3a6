"""Usage on a whole mesh: what tasks held of their replica, by tenant and batch."""

import time
from pathlib import Path
from typing import Any

import numpy as np

import forebay
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp, write_echo

# Notes are written every 10 s, and so are hours.
WRITTEN_S = 80.0


async def test_tasks_are_seen_in_the_usage_of_their_batch(tmp_path: Path) -> None:
    with ForebayUp(tmp_path / "state") as mesh:
        mesh.forebay("deploy", write_echo(tmp_path / "echo", max_ongoing_requests=2)).ok()
        inputs = {"WAIT_S": np.array([0.5], np.float32), "IN_INT8": np.array([1], np.int8)}
        began_s = time.monotonic()
        async with forebay.AsyncClient(mesh.mesh["router"]) as client:
            handles = [await client.submit("echo", inputs, batch="nightly") for _ in range(4)]
            handles.append(await client.submit("echo", inputs))
            for handle in handles:
                await handle.result(60)
        took_s = time.monotonic() - began_s

        def rows(*flags: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = mesh.forebay("usage", *flags, "-o", "json").json()
            return found

        async def noted() -> bool:
            return sum(row["attempt_count"] for row in rows("--by-batch")) == len(handles)

        await eventually(noted, timeout_s=WRITTEN_S)
        alone, nightly = rows("echo", "--by-batch")
        assert (alone["tenant"], alone["batch"], nightly["batch"]) == ("default", "", "nightly")
        # Half a second in one of two slots, each.
        assert 0.25 <= alone["replica_s"] <= took_s / 2
        assert 4 * 0.25 <= nightly["replica_s"] <= 4 * took_s / 2

        def held() -> dict[str, Any]:
            (row,) = rows() or [{"replica_s": 0.0}]
            assert row["replica_s"] > nightly["replica_s"]
            return row

        assert (await eventually(held, timeout_s=WRITTEN_S))["deployment"] == "echo"
