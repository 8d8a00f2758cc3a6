"""How far a map is, on a terminal."""

import sys
import time
from collections.abc import Sized
from typing import Any, Self

_PAUSE_S = 0.1


class ProgressBar:
    """Done, failed, rate and time left, on standard error; nothing where that is no terminal."""

    def __init__(
        self,
        title: str,
        total: int | None,
        wanted: bool = True,
        done: int = 0,
        failed: int = 0,
    ) -> None:
        """Shows nothing before `show` or the first `count`.

        Args:
            title: what is being done.
            total: items there will be; None if that is not known.
            wanted: whether to show anything.
            done: items that were done before.
            failed: how many of them failed.
        """
        self._title = title
        self._total = total
        self._is_shown = wanted and sys.stderr.isatty()
        self._done, self._failed = done, failed
        self._told_s = 0.0
        self._bar: Any = None
        self._line: Any = None

    @classmethod
    def over(cls, inputs: object, title: str, wanted: bool) -> Self:
        """A bar for what is to be done with some inputs."""
        return cls(title, len(inputs) if isinstance(inputs, Sized) else None, wanted)

    def show(self) -> None:
        """Shows where it stands, so that the wait for the first item has a bar too."""
        if self._is_shown and self._bar is None:
            self._tell()

    def count(self, failed: bool) -> None:
        """Takes note that an item is done."""
        if not self._is_shown:
            return
        self._done += 1
        self._failed += failed
        now_s = time.monotonic()
        if now_s - self._told_s >= _PAUSE_S:
            self._told_s = now_s
            self._tell()

    def close(self) -> None:
        """Leaves the last state on the screen."""
        if self._bar is not None:
            self._tell()
            self._bar.stop()
            self._bar = None
        self._is_shown = False

    def _tell(self) -> None:
        if self._bar is None:
            self._start()
        self._bar.update(self._line, completed=self._done, failed=self._failed)

    def _start(self) -> None:
        # Here: what is not shown need not be imported, which takes 50 ms.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            _rate_column(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._line = self._bar.add_task(
            self._title, total=self._total, completed=self._done, failed=self._failed
        )
        self._bar.start()


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items per second."""

        def render(self, task: Task) -> Text:
            """The rate, once there is one."""
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    return Rate()
