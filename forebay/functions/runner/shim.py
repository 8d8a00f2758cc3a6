"""The module `forebay` inside a replica: what a user's file imports at its top, and no more.

Decorators leave the code as it is, so that the runner finds it; scaling objects are taken and
forgotten. What talks to a mesh is not here: a name that is asked for exists, and using it says so.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__version__ = "0+replica"


class PermanentError(Exception):
    """Raised by a function: trying again cannot help."""

    forebay_permanent = True


class _Function:
    """A decorated function or class, as it is called inside a replica."""

    def __init__(self, target: Callable[..., Any], on_start: Callable[[], Any] | None) -> None:
        self.forebay_target = target
        self.forebay_on_start = on_start
        self._local: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the code in this process."""
        if self._local is None:
            self._local = self.forebay_start()
        return self._local(*args, **kwargs)

    def forebay_start(self) -> Callable[..., Any]:
        """Makes what is called, and runs its `on_start`."""
        made = self.forebay_target() if isinstance(self.forebay_target, type) else None
        on_start = self.forebay_on_start if made is None else getattr(made, "on_start", None)
        if on_start is not None:
            on_start()
        return self.forebay_target if made is None else made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Elsewhere(f"a function's {name}()")


class _Elsewhere:
    """Something that a replica has no use for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Says that it is not here.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{self._name} cannot be used inside a replica: functions get their items and return "
            "their results; call other functions directly, or from the caller"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Elsewhere(f"{self._name}.{name}")


def function(
    target: Callable[..., Any] | None = None,
    *,
    on_start: Callable[[], Any] | None = None,
    **_: Any,
) -> Any:
    """Marks what the runner calls."""
    if target is not None:
        return _Function(target, on_start)
    return lambda found: _Function(found, on_start)


def schedule(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Leaves a function as it is."""
    return lambda target: target


def volume(name: str) -> Path:
    """Where a volume is mounted.

    Raises:
        LookupError: if the deployment does not name it.
    """
    variable = f"FOREBAY_VOLUME_{name.upper().replace('-', '_')}"
    path = os.environ.get(variable)
    if not path:
        raise LookupError(
            f"there is no volume {name!r} here: {variable} is not set. Name it in the function's "
            f"volumes: @forebay.function(volumes=[{name!r}])"
        )
    return Path(path)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'forebay' has no attribute {name!r}")
    if name[0].isupper():
        # A class, perhaps of an error in an `except`, perhaps a scaling object.
        return type(name, (_Forgotten,), {})
    return _Elsewhere(f"forebay.{name}")


class _Forgotten(Exception):  # noqa: N818, stands for errors and for values
    """Takes whatever it is made of."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
