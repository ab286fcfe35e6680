"""Writes the log to stderr, for people (`[hashee] connection: connected slot=1`) or as JSON, one object a line.

No line waits for its reader (host/log_stream.py). Lines have colours on a terminal (unless NO_COLOR is set), and in the journal their priority
(`<4>`), by which it can filter.

Of an exception only type and place are shown, since its text may quote a message. For the same reason lines of other libraries, which
come through `logging`, show only which library and where.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, TextIO

import structlog

from bus.telemetry.traces import of_log_line
from host.log_stream import LINES_LOST, queue_of
from supervisor.settings.keeper import LogSettings
from supervisor.settings.secrets import Secret

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
PRIORITIES: Mapping[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
COLOURS: Mapping[str, str] = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
Event = MutableMapping[str, Any]  # structlog's own type of an event


def configure_logging(settings: LogSettings, role: str, stream: TextIO | None = None) -> None:
    """Sets the log of this process up, once. `role`: keeper, supervisor, …, which JSON lines carry."""
    output = stream or sys.stderr
    as_json = wants_json(settings.format, is_terminal=output.isatty(), environ=os.environ)
    renderer = structlog.processors.JSONRenderer() if as_json else _Console(_decoration(output, os.environ))
    role_and_time = [_RoleAndTime(role)] if as_json else []
    if queue := queue_of(output):
        queue.tell_lost = _LostLines([*role_and_time, renderer])
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.contextvars.merge_contextvars,
            _span_of_line,
            _place_of_exception,
            _hide_secrets,
            *role_and_time,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(LEVELS[settings.level], logging.WARNING), handlers=[_OtherLibraries()], force=True)


class _OtherLibraries(logging.Handler):
    """Writes lines of other libraries (hypercorn, httpx2, trio-websocket, redis, …) into our log, without their text."""

    def emit(self, record: logging.LogRecord) -> None:
        event = f"{record.name}: {record.levelname}"
        structlog.get_logger().log(record.levelno, event, at=f"{record.module}:{record.lineno}")


class _LostLines:
    """Formats the line about lost lines like the others; called in the log's own thread."""

    def __init__(self, processors: Sequence[Callable[[object, str, Event], Any]]) -> None:
        self._processors = processors

    def __call__(self, count: int) -> str:
        event: Any = {"event": LINES_LOST, "lines": count, "level": "warning"}
        for processor in self._processors:
            event = processor(None, "warning", event)
        return str(event)


Decoration = Callable[[str, str], str]
"""Takes level and line, and returns the line as it is written."""


def _decoration(output: TextIO, environ: Mapping[str, str]) -> Decoration:
    if output.isatty() and not environ.get("NO_COLOR"):
        return _coloured
    return _with_priority if is_the_journal(output, environ) else _plain


def is_the_journal(output: TextIO, environ: Mapping[str, str]) -> bool:
    """Returns whether this very stream goes to the journal: JOURNAL_STREAM alone is inherited also by a process that writes elsewhere."""
    try:
        found = os.fstat(output.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _plain(_level: str, line: str) -> str:
    return line


def _with_priority(level: str, line: str) -> str:
    return f"<{PRIORITIES.get(level, 6)}>{line}"


def _coloured(level: str, line: str) -> str:
    colour = COLOURS.get(level)
    return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


class _Console:
    """structlog's renderer for people."""

    def __init__(self, decorate: Decoration) -> None:
        self._decorate = decorate

    def __call__(self, logger: object, method: str, event: Event) -> str:
        level = str(event.get("level", "info"))
        return self._decorate(level, console_line(logger, method, event))


def wants_json(log_format: str, *, is_terminal: bool, environ: Mapping[str, str]) -> bool:
    """Returns whether lines are JSON. `auto`: text on a terminal and in the journal, JSON wherever else lines are collected."""
    if log_format != "auto":
        return log_format == "json"
    return not is_terminal and "JOURNAL_STREAM" not in environ


def console_line(_logger: object, _method: str, event: Event) -> str:
    """Returns the event's text, then key=value in the given order."""
    level = event.pop("level", "info")
    text = str(event.pop("event", ""))
    prefix = f"{level}: " if level in {"warning", "error", "critical"} else ""
    values = "".join(f" {name}={_shown(value)}" for name, value in event.items())
    return f"[hashee] {prefix}{text}{values}"


def _shown(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(character in text for character in ' ="')
    return text if plain else repr(text)


def _place_of_exception(_logger: object, _method: str, event: Event) -> Event:
    given = event.pop("exc_info", None)
    exception = sys.exc_info()[1] if given is True else given
    if isinstance(exception, BaseException):
        event["exception"] = type(exception).__name__
        if places := extract_tb(exception.__traceback__):
            event["at"] = f"{Path(places[-1].filename).name}:{places[-1].lineno}"
    return event


def _span_of_line(_logger: object, _method: str, event: Event) -> Event:
    return {**event, **span} if (span := of_log_line()) else event


def _hide_secrets(_logger: object, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, Secret | bytes | bytearray | memoryview):
            event[name] = "(hidden)"
    return event


class _RoleAndTime:
    """Adds role and time, which a terminal and the journal show by themselves."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        event["role"] = self._role
        event["pid"] = os.getpid()
        return self._stamp(logger, method, event)
