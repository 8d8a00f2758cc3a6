import asyncio

import pytest

from services.runtime.tasks import run_until


async def for_ever() -> None:
    await asyncio.Event().wait()


def reasons(raised: pytest.ExceptionInfo[ExceptionGroup[Exception]]) -> list[str]:
    return [str(error) for error in raised.value.exceptions]


async def test_stopping_cancels_all_work_and_is_no_failure() -> None:
    stopping = asyncio.Event()
    started: list[str] = []
    cancelled: list[str] = []

    async def work(name: str) -> None:
        started.append(name)
        if len(started) == 2:
            stopping.set()
        try:
            await for_ever()
        finally:
            cancelled.append(name)

    await run_until(stopping, one=work("one"), other=work("other"))
    assert sorted(cancelled) == ["one", "other"]


async def test_work_that_fails_ends_the_rest_and_is_told() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    rest = asyncio.Event()

    async def other() -> None:
        try:
            await for_ever()
        finally:
            rest.set()

    with pytest.raises(ExceptionGroup) as raised:
        await run_until(asyncio.Event(), bad=fails(), other=other())
    assert reasons(raised) == ["broken"]
    assert rest.is_set()


async def test_work_that_returns_is_a_failure() -> None:
    async def returns() -> None:
        """Done at once."""

    with pytest.raises(ExceptionGroup) as raised:
        await run_until(asyncio.Event(), short=returns(), other=for_ever())
    assert reasons(raised) == ["background work 'short' ended by itself"]


async def test_work_that_ends_cancelled_is_a_failure() -> None:
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ExceptionGroup) as raised:
        await run_until(asyncio.Event(), gone=cancels_itself(), other=for_ever())
    assert reasons(raised) == ["background work 'gone' was cancelled"]


async def test_work_that_swallows_a_cancellation_is_cancelled_again() -> None:
    stopping = asyncio.Event()
    stopping.set()
    swallowed = asyncio.Event()

    async def stubborn() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            swallowed.set()
        await for_ever()

    async with asyncio.timeout(5):
        await run_until(stopping, stubborn=stubborn())
    assert swallowed.is_set()


async def test_cancelling_it_cancels_the_work() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await for_ever()
        finally:
            ended.set()

    running = asyncio.create_task(run_until(asyncio.Event(), work=work()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
