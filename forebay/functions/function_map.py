"""Results of a map as what the function returned."""

from types import TracebackType
from typing import Any, Self

from forebay.errors import ForebayError
from forebay.functions.calls import value_of
from forebay.functions.errors import typed
from forebay.inference import InferResult


class _Values:
    """Takes values out of results."""

    def __init__(self, tasks: Any, return_exceptions: bool) -> None:
        """Results of `Client.map`."""
        self._tasks = tasks
        self._return_exceptions = return_exceptions

    @property
    def batch(self) -> str:
        """Id of the batch: `map(..., batch=…)` with the same items goes on with it."""
        batch: str = self._tasks.batch
        return batch

    def _value(self, result: Any) -> Any:
        try:
            if isinstance(result, InferResult):
                return value_of(result)
        except ForebayError as error:
            if not self._return_exceptions:
                raise
            return error
        return typed(result) if isinstance(result, ForebayError) else result


class FunctionMap(_Values):
    """An iterator over what a function returned. Leaving it early stops handing in."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._value(next(self._tasks))
        except ForebayError as error:
            self.close()
            raise typed(error) from None

    def close(self) -> None:
        """Stops handing in; what was submitted goes on."""
        self._tasks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncFunctionMap(_Values):
    """An asynchronous iterator over what a function returned."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._value(await anext(self._tasks))
        except ForebayError as error:
            await self.aclose()
            raise typed(error) from None

    async def aclose(self) -> None:
        """Stops handing in; what was submitted goes on."""
        await self._tasks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
