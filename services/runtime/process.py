"""The life of a service process: configuration, logs, signals, one exit code.

A background task that fails ends the process with exit code 1, so that whoever supervises it can
start it again; SIGTERM and SIGINT ask it to drain.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog
import uvloop

from services.runtime import logs, memory, ports, scheduling, telemetry
from services.runtime.config import ConfigError, ProcessSettings

log = structlog.get_logger()

S = TypeVar("S", bound=ProcessSettings)

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


def run(
    service: str, settings_class: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]]
) -> None:
    """Runs a service until it is told to stop; ends the process.

    Args:
        service: name of the service, such as `router`.
        settings_class: its settings, read from the command line.
        serve: serves until the event is set, then drains and returns.
    """
    try:
        settings = settings_class.load(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"forebay-{service.replace('_', '-')}: {error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    logs.configure(service, settings.log_level, settings.log_format)
    memory.keep_freed()
    try:
        telemetry.configure(service)
    except ValueError as error:
        log.error("process.failed", error=str(error))
        raise SystemExit(EXIT_CONFIGURATION) from None
    scheduling.prefer_throughput()
    try:
        uvloop.run(_until_told(settings, serve))
    except* (OSError, ports.AddressError) as group:
        for leaf in _leaves(group):
            log.error("process.failed", error=str(leaf))
        raise SystemExit(EXIT_FAILED) from None
    finally:
        telemetry.shutdown()


async def _until_told(settings: S, serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await serve(settings, stopping)


def announce(settings: ProcessSettings, **addresses: str) -> None:
    """Says where the service listens, in the log and in its ready file.

    Args:
        settings: the service's settings.
        addresses: `host:port` by what listens there.
    """
    for what, address in addresses.items():
        if ports.is_loopback(address):
            log.info("listening", what=what, address=address)
        else:
            log.warning("listening.beyond_loopback", what=what, address=address)
    if settings.ready_file is not None:
        write_atomically(settings.ready_file, json.dumps({"pid": os.getpid(), **addresses}))


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
