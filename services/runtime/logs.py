"""Structured logs on standard error, each line with the trace id of what it speaks about."""

import logging
import sys

import structlog


def configure(service: str, level: str, log_format: str) -> None:
    """Sets up the logs of this process.

    Args:
        service: name of the service, on every line.
        level: debug, info, warning or error.
        log_format: json, console, or auto (console on a terminal).
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries log through the standard module; warnings of theirs are ours to see.
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr, force=True)
