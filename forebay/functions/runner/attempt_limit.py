"""The time an attempt may take, enforced by SIGALRM inside the process that runs it.

Python runs signal handlers in the main thread between two of its own instructions: code that stays
in C for long is interrupted when it returns. Only the main thread can set it.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class AttemptTimeoutError(TimeoutError):
    """Raised in the user's code when its time is over."""


class AttemptLimit:
    """Raises AttemptTimeoutError within the block once its time is over; None: never."""

    def __init__(self, limit_s: float | None) -> None:
        """A limit in seconds from the block's begin; it is without effect off the main thread."""
        self._limit_s = limit_s
        self._armed = False

    @property
    def over(self) -> bool:
        """Whether the time was over before the block ended."""
        return self._over

    _over = False

    def __enter__(self) -> Self:
        if self._limit_s is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self._raise)
            self._armed = True
            # 0 would switch it off.
            signal.setitimer(signal.ITIMER_REAL, max(self._limit_s, 1e-6))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self, _: int, __: FrameType | None) -> None:
        if not self._armed:
            return
        self._over = True
        raise AttemptTimeoutError(
            f"the attempt took longer than attempt_timeout_s = {self._limit_s:g} s"
        )
