"""Logs: to stderr, for a person (`[hashee] connection: connected slot=1`) or as JSON, one object a line.

An exception is shown by its type and place only: its text may carry what a message said. For the same reason the
lines of other libraries, which come through `logging`, show who speaks and where, and not what.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from traceback import extract_tb
from typing import Any, TextIO

import structlog

from supervisor.config import LogSettings
from supervisor.secrets import Secret

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
Event = MutableMapping[str, Any]  # structlog's own type of an event


def configure_logging(settings: LogSettings, role: str, stream: TextIO | None = None) -> None:
    """Once per process, at its edge. `role` is keeper, supervisor, …: JSON lines carry it."""
    output = stream or sys.stderr
    as_json = wants_json(settings.format, is_terminal=output.isatty(), environ=os.environ)
    renderer = structlog.processors.JSONRenderer() if as_json else console_line
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.contextvars.merge_contextvars,
            _place_of_exception,
            _hide_secrets,
            *([_RoleAndTime(role)] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(LEVELS[settings.level], logging.WARNING),
        format="[hashee] %(name)s: %(levelname)s at %(module)s:%(lineno)d",
        stream=output,
        force=True,
    )


def wants_json(log_format: str, *, is_terminal: bool, environ: Mapping[str, str]) -> bool:
    """`auto` is for people on a terminal and in the journal, JSON wherever else the lines are collected."""
    if log_format != "auto":
        return log_format == "json"
    return not is_terminal and "JOURNAL_STREAM" not in environ


def console_line(_logger: object, _method: str, event: Event) -> str:
    """The event's text first, then key=value, in the order in which they were given."""
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


def _hide_secrets(_logger: object, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, Secret | bytes | bytearray | memoryview):
            event[name] = "(hidden)"
    return event


class _RoleAndTime:
    """Adds who speaks and when, which a terminal and the journal show by themselves."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        event["role"] = self._role
        event["pid"] = os.getpid()
        return self._stamp(logger, method, event)
