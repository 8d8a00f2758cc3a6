"""A process that calls one custom policy: started by the autoscaler, ended by it, or with it.

    python -P -m services.autoscaler.custom.worker DIRECTORY package.module:function

It reads one JSON object of signals a line and answers with one line each: `{"answer": 2.0}` or
`{"error": "raised ValueError: ..."}`. The first line, `{}` or an error, says whether the function
can be used. Standard input and output are the protocol's alone: what the function prints goes to
standard error, and what it reads is empty.

What it may use is limited, so that a function that fails does not take the machine with it.
"""

import ctypes
import importlib
import inspect
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from numbers import Real
from pathlib import Path
from typing import TextIO

from services.autoscaler.scaling.signals import Signals

MAX_REPLICAS = 1000
MAX_ERROR_CHARACTERS = 200
MAX_VALUE_CHARACTERS = 80

ADDRESS_SPACE_BYTES = 2 * 1024**3
OPEN_FILES = 256
# Of CPU for one call and whatever goes on behind it until the next one.
CPU_S_PER_CALL = 5
# Replicas can wait a moment longer than requests.
NICE = 5

_PR_SET_PDEATHSIG = 1


class UnusableError(Exception):
    """A function that cannot be called; the text says why."""


def main(directory: str, function: str) -> None:
    """Answers until its input ends."""
    questions, answers = _own_streams()
    _limit()
    try:
        called = found(Path(directory), function)
    except UnusableError as error:
        _say(answers, {"error": str(error)})
        return
    _say(answers, {})
    for line in questions:
        _limit_cpu()
        _say(answers, answer(called, Signals(**json.loads(line))))


def found(directory: Path, function: str) -> Callable[[Signals], object]:
    """The function of that name.

    Args:
        directory: where its module or package is.
        function: as `package.module:function`.

    Raises:
        UnusableError: if there is none, or what there is cannot be called.
    """
    module_name, _, name = function.partition(":")
    top = module_name.partition(".")[0]
    # Any module of the autoscaler's Python would do otherwise, and os.abort is a function too.
    if PathFinder.find_spec(top, [str(directory)]) is None:
        raise UnusableError(f"there is no module {top} in policies_dir, {directory}")
    sys.path.insert(0, str(directory))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UnusableError(f"importing {module_name} {_raised(error)}") from error
    called = getattr(module, name, None)
    if called is None:
        raise UnusableError(f"module {module_name} has no function {name}")
    if not callable(called):
        raise UnusableError(f"{name} is not a function but {_shown(called)}")
    if inspect.iscoroutinefunction(called):
        raise UnusableError(f"{name} is a coroutine function: it must be a plain one")
    return called  # type: ignore[no-any-return]


def answer(called: Callable[[Signals], object], signals: Signals) -> dict[str, object]:
    """What a function answers, or why that is no number of replicas."""
    try:
        value = called(signals)
        if isinstance(value, bool) or not isinstance(value, Real):
            return {"error": f"returned {_shown(value)}: it must be a number"}
        number = float(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of others
        return {"error": _raised(error)}
    if not math.isfinite(number) or not 0 <= number <= MAX_REPLICAS:
        return {"error": f"returned {number:g}: it must be 0 to {MAX_REPLICAS}"}
    return {"answer": number}


def _raised(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - code of others
        lines = []
    text = f"raised {type(error).__name__}" + (f": {lines[0]}" if lines else "")
    return text[:MAX_ERROR_CHARACTERS]


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - code of others
        text = f"a {type(value).__name__}"
    return text[:MAX_VALUE_CHARACTERS]


def _own_streams() -> tuple[TextIO, TextIO]:
    """The protocol's streams, under numbers that nobody else uses."""
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return questions, answers


def _say(answers: TextIO, message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _limit() -> None:
    # A function that hangs would outlive an autoscaler that was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_AS, ADDRESS_SPACE_BYTES)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit_cpu()


def _lower(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _limit_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used.ru_utime + used.ru_stime) + CPU_S_PER_CALL
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
