"""Calls that were submitted: tasks whose result is what the function returned."""

from typing import Any

from forebay.errors import ForebayError
from forebay.functions.calls import value_of
from forebay.functions.errors import typed


class FunctionCall:
    """A submitted call.

    Attributes:
        handle: the task itself: name, id, status, cancel(), retry(); all are here too.
    """

    def __init__(self, handle: Any) -> None:
        """A call that is a task."""
        self.handle = handle

    def result(self, timeout_s: float | None = None) -> Any:
        """Waits for the task's end; returns what the function returned.

        Args:
            timeout_s: how long to wait, in seconds; None: until it has ended.

        Raises:
            FunctionError: if the function raised in its last attempt.
            DeadlineExceededError: if it has not ended in time; it goes on.
            TaskError: of the kind that says how it ended.
        """
        try:
            return value_of(self.handle.result(timeout_s))
        except ForebayError as error:
            raise typed(error) from None

    def retry(self) -> "FunctionCall":
        """Submits a failed call again."""
        return FunctionCall(self.handle.retry())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    def __repr__(self) -> str:
        return f"<forebay function call {self.handle.name}>"


class AsyncFunctionCall:
    """As FunctionCall; what waits is to be awaited."""

    def __init__(self, handle: Any) -> None:
        """A call that is a task."""
        self.handle = handle

    async def result(self, timeout_s: float | None = None) -> Any:
        """As `FunctionCall.result`."""
        try:
            return value_of(await self.handle.result(timeout_s))
        except ForebayError as error:
            raise typed(error) from None

    async def retry(self) -> "AsyncFunctionCall":
        """As `FunctionCall.retry`."""
        return AsyncFunctionCall(await self.handle.retry())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    def __repr__(self) -> str:
        return f"<forebay function call {self.handle.name}>"
