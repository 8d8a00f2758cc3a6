"""Callers and tasks of the compose tests, which go on whatever is killed."""

import asyncio

import numpy as np

import forebay
from forebay.errors import UnavailableError
from tests.support.eventually import eventually

WAIT_S = 120.0
CALLERS = 4


def do(word: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([word], dtype=object)}


def said(result: forebay.InferResult) -> str:
    word: bytes = result["SAID"][0]
    return word.decode()


class Callers:
    """Callers that go on until told to stop; what they got is counted."""

    def __init__(self, router: str, wait_s: float = 0.05) -> None:
        self._router = router
        self._wait_s = wait_s
        self._stopping = asyncio.Event()
        self.answered = 0
        self.unavailable = 0

    async def run(self, count: int = CALLERS) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._call())

    def stop(self) -> None:
        self._stopping.set()

    async def _call(self) -> None:
        async with forebay.AsyncClient(self._router) as client:
            while not self._stopping.is_set():
                try:
                    result = await client.infer("chaos", do(f"wait:{self._wait_s}"), timeout_s=60)
                except UnavailableError:
                    self.unavailable += 1
                    await asyncio.sleep(0.2)
                else:
                    assert said(result) == f"wait:{self._wait_s}"
                    self.answered += 1


async def answers(callers: Callers, count: int) -> None:
    """Waits until so many more calls were answered."""
    before = callers.answered
    await eventually(lambda: callers.answered >= before + count, WAIT_S, f"{count} answers")


async def map_tasks(router: str, count: int) -> list[str]:
    async def inputs():  # type: ignore[no-untyped-def]
        for index in range(count):
            yield do(f"say {index}")

    async with forebay.AsyncClient(router) as client:
        return [said(result) async for result in client.map("chaos", inputs(), max_in_flight=40)]
