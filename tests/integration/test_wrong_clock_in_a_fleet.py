"""A fleet in which one machine's clock is wrong by ten minutes."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import forebay
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.nats_server import NatsServer

WRONG_BY_S = 600
CALLS = 200
CALLERS = 12
WAIT_S = 60.0


def faketime() -> Path | None:
    """Debian's libfaketime, which lets a process see another time of day."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def wrong_clock() -> dict[str, str]:
    """The environment of a process whose wall clock is wrong; its monotonic one is right."""
    library = faketime()
    if library is None:
        pytest.skip("there is no libfaketime here: install Debian's package faketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{WRONG_BY_S:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


def test_a_process_with_the_wrong_clock_has_it(wrong_clock: dict[str, str]) -> None:
    script = "import time; print(time.time(), time.monotonic())"
    texts = [
        subprocess.check_output([sys.executable, "-c", script], env={**os.environ, **more})
        for more in ({}, wrong_clock)
    ]
    (wall, monotonic), (wrong_wall, wrong_monotonic) = (map(float, t.split()) for t in texts)
    assert wrong_wall - wall == pytest.approx(WRONG_BY_S, abs=30)
    assert wrong_monotonic - monotonic == pytest.approx(0, abs=30)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "sign"), [("node-0", 1), ("router-1", -1), ("metrics", -1), ("autoscaler-0", 1)]
)
async def test_one_wrong_clock_stops_nothing(
    name: str, sign: int, wrong_clock: dict[str, str], tmp_path: Path
) -> None:
    wrong = {**wrong_clock, "FAKETIME": f"{sign * WRONG_BY_S:+d}s"}
    with NatsServer(tmp_path) as server:
        async with Fleet(tmp_path / "fleet", server.url, environments={name: wrong}) as fleet:
            file = write_chaos(
                tmp_path / "chaos",
                max_ongoing_requests=4,
                request_timeout_s=30,
                scaling={
                    "min_replicas": 1,
                    "max_replicas": 2,
                    "target_ongoing_requests": 1,
                    "look_back_period_s": 2,
                    "upscale_delay_s": 0,
                },
            )
            await fleet.forebay("deploy", file)
            async with forebay.AsyncClient(fleet.routers[1]) as client:
                calls = (client.infer("chaos", do("say"), timeout_s=WAIT_S) for _ in range(CALLS))
                answers = await asyncio.gather(*calls)
                assert len(answers) == CALLS
                results = client.map("chaos", [do(f"say {i}") for i in range(50)])
                said = [result["SAID"][0].decode() async for result in results]
                assert said == [f"say {index}" for index in range(50)]
            nodes = json.loads(await fleet.forebay("nodes", "-o", "json"))
            assert {node["state"] for node in nodes} == {"active"}, nodes
            # Load is seen, and with it a second replica is wanted and starts.
            callers = [asyncio.create_task(busy(fleet.routers[0])) for _ in range(CALLERS)]
            try:
                await eventually(lambda: ready_count(fleet, 2), WAIT_S, "the second replica")
            finally:
                for caller in callers:
                    caller.cancel()
                await asyncio.gather(*callers, return_exceptions=True)


async def busy(router: str) -> None:
    async with forebay.AsyncClient(router) as client:
        while True:
            await client.infer("chaos", do("say"), timeout_s=WAIT_S)


async def ready_count(fleet: Fleet, count: int) -> bool:
    text = await fleet.forebay("status", "chaos", "-o", "json")
    return int(json.loads(text)["status"]["ready_replica_count"]) == count
