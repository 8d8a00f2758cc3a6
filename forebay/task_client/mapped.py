"""The results of a map, to be iterated: for asyncio and without."""

from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from forebay.inference import InferResult
from forebay.task_client.engine import InputRaised, MapEngine, Value
from forebay.task_client.portal import Portal
from forebay.task_client.progress_bar import ProgressBar

R = TypeVar("R", bound=InferResult | Exception)


class _Handing(Generic[R]):
    """Hands out what came: as a value or, where that is wanted, as an exception."""

    def __init__(
        self, engine: MapEngine, batch: str, return_exceptions: bool, bar: ProgressBar
    ) -> None:
        self.batch = batch
        """Id of the batch: `map(..., batch=…)` with the same inputs goes on with it."""
        self._engine = engine
        self._return_exceptions = return_exceptions
        self._bar = bar
        self._chunk: list[tuple[int, Value]] = []
        self._is_over = False

    def _filled(self, taken: list[tuple[int, Value]]) -> bool:
        self._chunk = taken[::-1]
        return bool(taken)

    def _next_value(self) -> Any:
        _, value = self._chunk.pop()
        if isinstance(value, InferResult):
            self._bar.count(failed=False)
            return value
        if isinstance(value, InputRaised):
            raise self._noted(value.error)
        self._bar.count(failed=True)
        if self._return_exceptions:
            return value
        raise self._noted(value)

    def _noted(self, error: Exception) -> Exception:
        error.add_note(
            f"The rest of batch {self.batch!r} goes on; mapping the same inputs again with "
            f"batch={self.batch!r} goes on from there."
        )
        return error


class TaskMap(_Handing[R]):
    """An iterator over the results of a map.

    Work begins with the first result that is asked for. Closing it, or leaving it, stops handing
    in; what was submitted goes on.
    """

    def __init__(self, portal: Portal, *handing: Any) -> None:
        super().__init__(*handing)
        self._portal = portal

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        if not self._chunk:
            if self._is_over:
                raise StopIteration
            self._bar.show()
            try:
                is_filled = self._filled(self._portal.call(self._engine.take()))
            except BaseException:
                self.close()
                raise
            if not is_filled:
                self.close()
                raise StopIteration
        try:
            value: R = self._next_value()
        except Exception:
            self.close()
            raise
        return value

    def close(self) -> None:
        """Stops handing in; what was submitted goes on."""
        self._chunk = []
        if not self._is_over:
            self._is_over = True
            self._bar.close()
            if not self._portal.is_closed:
                self._portal.call(self._engine.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Without waiting: this may be any thread, the loop's own among them.
        if not self._is_over:
            self._bar.close()
            self._portal.tell(self._engine.abandon)


class AsyncTaskMap(_Handing[R]):
    """An asynchronous iterator over the results of a map.

    Work begins with the first result that is asked for. Closing it, or leaving it, stops handing
    in; what was submitted goes on.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        if not self._chunk:
            if self._is_over:
                raise StopAsyncIteration
            self._bar.show()
            try:
                is_filled = self._filled(await self._engine.take())
            except BaseException:
                await self.aclose()
                raise
            if not is_filled:
                await self.aclose()
                raise StopAsyncIteration
        try:
            value: R = self._next_value()
        except Exception:
            await self.aclose()
            raise
        return value

    async def aclose(self) -> None:
        """Stops handing in; what was submitted goes on."""
        self._chunk = []
        if not self._is_over:
            self._is_over = True
            self._bar.close()
            await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._is_over:
            self._bar.close()
            try:
                self._engine.abandon()
            except RuntimeError:
                # Its loop has ended, and everything with it.
                pass
