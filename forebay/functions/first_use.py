"""What happens before a function is first called in the mesh: nothing, unless something is set.

`forebay run` deploys then what a script uses, as it comes to use it.
"""

import threading
from collections.abc import Callable
from typing import Any

MAX_FUNCTIONS = 1000

_lock = threading.Lock()
_prepare: Callable[[Any], None] | None = None
_prepared: set[str] = set()


def set_preparation(prepare: Callable[[Any], None] | None) -> None:
    """Sets what is called with each function before its first use; it may block."""
    global _prepare
    with _lock:
        _prepare = prepare
        _prepared.clear()


def note(function: Any) -> None:
    """Takes note that a function is about to be used.

    Raises:
        RuntimeError: if a process uses more than 1000 functions.
    """
    if _prepare is None:
        return
    with _lock:
        if function.name in _prepared:
            return
        if len(_prepared) >= MAX_FUNCTIONS:
            raise RuntimeError(f"a script uses at most {MAX_FUNCTIONS} functions")
        _prepare(function)
        _prepared.add(function.name)
