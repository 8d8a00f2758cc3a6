"""How the body of a command runs, and how the process ends when it fails."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forebay.cli import failure
from forebay.cli.output import say

if TYPE_CHECKING:
    from forebay.cli.link import Where


def where_of(**given: Any) -> "Where":
    """Where the mesh is, of the options a command was given."""
    from forebay.cli.link import Where

    return Where(**given)


def run(command: Coroutine[Any, Any, None]) -> None:
    """Runs a command's coroutine to its end."""
    # Here, inside the command: the parser would call Ctrl-C a failure.
    with failures():
        asyncio.run(command)


@contextmanager
def failures() -> Iterator[None]:
    """Ends the process with a sentence and an exit code where a traceback would be."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(failure.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(failure.FAILED)
    except Exception as error:
        if os.environ.get("FOREBAY_DEBUG"):
            raise
        expected = _expected(error)
        if expected is None:
            say(
                f"forebay: unexpected {type(error).__name__}: {error}. Run it again with "
                "FOREBAY_DEBUG=1 for details to report."
            )
            sys.exit(failure.FAILED)
        say(f"forebay: {expected}")
        sys.exit(expected.exit_code)


def _expected(error: BaseException) -> failure.CliError | None:
    """The failure in an error, or in the group a task group made of it."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_expected, error.exceptions)), None)
    return error if isinstance(error, failure.CliError) else None
