"""Runs a user's function on encoded items and encodes what comes of each.

An item is `[args, kwargs]`, encoded; a result is `{"ok": value}` or `{"error": …}`. An empty item is
the canary: it is answered without a call. Items fail one by one: whatever one of them raises, the
others get their results.
"""  # noqa: E501

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .attempt_limit import AttemptLimit, AttemptTimeoutError
from .codec import CodecError, decode, encode
from .failures import Failure, failure_of

DESCRIPTION_FILE = "function.json"
CODE_DIRECTORY = "code"
SHIM_DIRECTORY = "shim"

_CAUGHT = (Exception, SystemExit, KeyboardInterrupt)
_NO_LIST = "InvalidBatchResult"
_CANARY = encode({"ok": None})


class StartError(Exception):
    """The function cannot be started; the text is the user's failure."""


@dataclass(frozen=True, slots=True)
class Request:
    """Items that came together.

    Attributes:
        items: encoded.
        limit_s: how long an attempt may take, in seconds; None: without end.
    """

    items: Sequence[bytes]
    limit_s: float | None = None


Outcome = bytes | Failure
"""An encoded result, or why there is none."""


class Worker:
    """A started function."""

    def __init__(self, function: Callable[..., Any], batch: bool, code: str = "") -> None:
        """Calls a function.

        Args:
            function: is called with an item's arguments, or with a list of items.
            batch: whether it takes a list and returns a list.
            code: directory of the user's code, left out of tracebacks.
        """
        self._function = function
        self._batch = batch
        self._code = code

    def answer(self, requests: Sequence[Request]) -> list[list[Outcome]]:
        """What comes of each item of each request, in order."""
        if not self._batch:
            return [self._answer_each(request) for request in requests]
        return self._answer_together(requests)

    def _answer_each(self, request: Request) -> list[Outcome]:
        outcomes: list[Outcome] = []
        limit = AttemptLimit(request.limit_s)
        try:
            with limit:
                for item in request.items:
                    outcomes.append(self._answer_one(item))
                    if limit.over:
                        break
        except AttemptTimeoutError as error:
            outcomes.append(failure_of(error, self._code))
        outcomes += [_not_run(request.limit_s)] * (len(request.items) - len(outcomes))
        return outcomes[: len(request.items)]

    def _answer_one(self, item: bytes) -> Outcome:
        if not item:
            return _CANARY
        try:
            args, kwargs = _arguments(item)
            result = self._function(*args, **kwargs)
        except _UnreadableError as error:
            return error.failure
        except _CAUGHT as error:
            return failure_of(error, self._code)
        return _encoded(result)

    def _answer_together(self, requests: Sequence[Request]) -> list[list[Outcome]]:
        outcomes: list[list[Outcome]] = [[_CANARY] * len(request.items) for request in requests]
        places: list[tuple[int, int]] = []
        values: list[Any] = []
        for row, request in enumerate(requests):
            for column, item in enumerate(request.items):
                if not item:
                    continue
                try:
                    value = _only_argument(item)
                except _UnreadableError as error:
                    outcomes[row][column] = error.failure
                else:
                    places.append((row, column))
                    values.append(value)
        # They run in one call: the shortest of their times is the time of all.
        limits_s = [request.limit_s for request in requests if request.limit_s is not None]
        limit_s = min(limits_s, default=None)
        for (row, column), outcome in zip(places, self._call_list(values, limit_s), strict=True):
            outcomes[row][column] = outcome
        return outcomes

    def _call_list(self, values: list[Any], limit_s: float | None) -> list[Outcome]:
        if not values:
            return []
        outcomes: list[Outcome] = []
        limit = AttemptLimit(limit_s)
        try:
            with limit:
                whole = self._try_list(values)
                if not isinstance(whole, Failure):
                    return [_encoded(result) for result in whole]
                if len(values) == 1 or limit.over or whole.kind == _NO_LIST:
                    return [whole] * len(values)
                # One bad item must not fail those that share its call.
                for value in values:
                    alone = self._try_list([value])
                    outcomes.append(alone if isinstance(alone, Failure) else _encoded(alone[0]))
                    if limit.over:
                        break
        except AttemptTimeoutError as error:
            outcomes.append(failure_of(error, self._code))
        outcomes += [_not_run(limit_s)] * (len(values) - len(outcomes))
        return outcomes[: len(values)]

    def _try_list(self, values: list[Any]) -> list[Any] | Failure:
        try:
            results = self._function(values)
        except _CAUGHT as error:
            return failure_of(error, self._code)
        if isinstance(results, str | bytes | dict) or not hasattr(results, "__len__"):
            return Failure(
                _NO_LIST,
                f"a function with batch=True returns a list with one result for each item; it "
                f"returned {type(results).__name__}",
                permanent=True,
            )
        if len(results) != len(values):
            return Failure(
                _NO_LIST,
                f"a function with batch=True returns one result for each item: it got "
                f"{len(values)} and returned {len(results)}",
                permanent=True,
            )
        return list(results)


def load(directory: Path) -> Worker:
    """Imports the user's code from a version directory of a model and starts the function.

    Raises:
        StartError: if it cannot be imported, is not there, or its `on_start` raises.
    """
    description = json.loads((directory / DESCRIPTION_FILE).read_text())
    code = str(directory / CODE_DIRECTORY)
    for path in (code, str(directory / SHIM_DIRECTORY)):
        sys.path.insert(0, path)
    try:
        module = importlib.import_module(description["module"])
        function = getattr(module, description["name"]).forebay_start()
    except _CAUGHT as error:
        raise StartError(failure_of(error, code).text) from error
    return Worker(function, description["batch"], code)


class _UnreadableError(Exception):
    """An item is not what a client of ours sends."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.failure = Failure("InvalidItem", reason, permanent=True)


def _arguments(item: bytes) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = decode(item)
    except CodecError as error:
        raise _UnreadableError(str(error)) from None
    match call:
        case [list(args), dict(kwargs)] if all(isinstance(name, str) for name in kwargs):
            return args, kwargs
    raise _UnreadableError("an item is a msgpack list of arguments and keyword arguments")


def _only_argument(item: bytes) -> Any:
    args, kwargs = _arguments(item)
    if len(args) != 1 or kwargs:
        raise _UnreadableError(
            f"a function with batch=True takes items of one argument; this one has {len(args)} "
            f"and {len(kwargs)} by keyword"
        )
    return args[0]


def _encoded(result: Any) -> Outcome:
    try:
        return encode({"ok": result})
    except CodecError as error:
        return Failure("CodecError", f"the function's result: {error}", permanent=True)


def _not_run(limit_s: float | None) -> Failure:
    return Failure(
        "TimeoutError",
        f"not run: items before it in its request used up attempt_timeout_s = {limit_s or 0:g} s",
    )
