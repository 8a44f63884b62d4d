"""Structured logs with `request_id` and `job_id`; nothing a client sends can forge a line."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.gathered_lines import GatheringHandler
from app.settings import Settings

QUIET = {"uvicorn.access": logging.CRITICAL, "alembic": logging.WARNING}
"""Loggers that say twice what ours say."""
BEGINNING = frozenset({"timestamp", "level", "event", "logger"})
UNUSUAL = frozenset({"stack", "exception", "exc_info", "logger_name"})
QUOTED = frozenset(" \t=\r\n\"'")
"""What a value may hold only in quotes."""


def configure_logging(settings: Settings, *, gathered: bool = False) -> None:
    """Send everything that this process logs, ours or a library's, to stderr in one shape.

    Args:
        gathered: lines may wait for others, for a process that writes many.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=gathered,  # what logs much is configured once
    )
    global _straight  # like the handlers of `logging` it belongs to the process
    renderers = _renderers(settings)
    handler: logging.Handler
    if gathered:
        handler = GatheringHandler(sys.stderr)
        _straight = StraightLines(handler, renderers[0])
    else:
        handler, _straight = logging.StreamHandler(sys.stderr), None
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                escape_control_characters,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def log_often(logger: str, event: str, **values: Any) -> None:
    """Log what is said many times a second: the same line as by `get_logger`, by the shortest way to it.

    Args:
        values: all that the line says, numbers and strings; what is bound to the context is not added.
    """
    if _straight is not None and _straight.is_in_use:
        _straight.write(logger, event, values)
    else:
        get_logger(logger).info(event, **values)


def escape_control_characters(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Write CR, LF, escape sequences and their kin as text; only our own tracebacks keep their lines."""
    return {name: value if name == "exception" else _escaped(value) for name, value in event.items()}


def _escaped(value: Any) -> Any:
    if isinstance(value, str) and not value.isprintable():
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
    return value


def _renderers(settings: Settings) -> list[Processor]:
    if settings.log_json:
        return [structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer(colors=True)]
    return [PlainLines()]


class StraightLines:
    """Hands over lines of level INFO before they are made, past the records and processors of any other."""

    def __init__(self, handler: GatheringHandler, renderer: Processor) -> None:
        self._handler, self._renderer = handler, renderer

    @property
    def is_in_use(self) -> bool:
        """Whether what this process logs still goes there."""
        return self._handler in logging.getLogger().handlers

    def write(self, logger: str, event: str, values: EventDict) -> None:
        self._handler.keep(partial(self._line, time.time(), logger, event, values))

    def _line(self, said_at: float, logger: str, event: str, values: EventDict) -> str:
        timestamp = datetime.fromtimestamp(said_at, UTC).isoformat(timespec="microseconds")
        said = {
            **values,
            "event": event,
            "level": "info",
            "logger": logger,
            "timestamp": timestamp.replace("+00:00", "Z"),
        }
        return str(self._renderer(None, "info", escape_control_characters(None, "info", said)))


_straight: StraightLines | None = None


class PlainLines:
    """Writes what structlog's ConsoleRenderer writes without colours, at a fifth of the price.

    Every request writes a line. One with a traceback, or without the usual beginning, is left to structlog.
    """

    def __init__(self) -> None:
        self._thorough = structlog.dev.ConsoleRenderer(colors=False)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        if not event.keys() >= BEGINNING or event.keys() & UNUSUAL:
            return self._thorough(logger, method, event)
        named = [f" {name}={_shown(event[name])}" for name in sorted(event) if name not in BEGINNING]
        beginning = f"{event['timestamp']} [{event['level']:<9}] {event['event']:<30} [{event['logger']}]"
        return beginning + "".join(named)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and QUOTED.isdisjoint(value) else repr(value)
