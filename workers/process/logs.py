"""Writes a worker's log lines to stderr, without waiting for the reader: `[hashee] event name=value`, or JSON.

Values are ids, names, counts and times, never content. The owner's own logging is left alone: nothing is set on the root logger.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import trio

from bus.telemetry.traces import of_log_line
from host import stacks
from host.log_stream import LINES_LOST, beside, queue_of

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
MOST_TRACEBACK_CHARS = 16_000
MOST_OF_A_CHAIN = 20
OURS = "hashee"
_OURS = str(Path(__file__).parents[1])
_PYTHONS = str(Path(os.__file__).parent)


class Log:
    """A log that takes events with named values.

    Its logger's level and handlers alone count: what the owner's code says of all logs (`logging.disable`, a dictConfig that disables those
    that there are, a factory of records) neither silences nor breaks it.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def info(self, event: str, **values: object) -> None:
        self._say(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        self._say(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        self._say(logging.ERROR, event, values)

    def _say(self, level: int, event: str, values: dict[str, object]) -> None:
        if level < self._logger.level:
            return
        record = logging.LogRecord(self._logger.name, level, "", 0, event, None, None)
        record.__dict__["values"] = values
        self._logger.callHandlers(record)


class _ToTheLog(logging.StreamHandler[TextIO]):
    """Writes each line, or what happened where its values cannot be written; raises nothing into the work that it tells of."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exception() or RuntimeError()
        with suppress(OSError, ValueError):  # it is closed: there is no log any more
            self.stream.write(f"[hashee] error: {record.getMessage()} (its values cannot be written: {kind(error)})\n")


def worker_log(environ: Mapping[str, str], consumer: str, *, level: str, line_format: str) -> Log:
    """Returns the log of this process, as HASHEE_LOG_LEVEL and HASHEE_LOG_FORMAT say."""
    logger = logging.Logger("hashee.worker", LEVELS[level])
    handler = _ToTheLog(beside(sys.stderr))
    as_json = _wants_json(environ, line_format)
    formatter = LineFormatter(consumer, as_json=as_json, with_priority=not as_json and _is_the_journal(environ))
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    below = logging.getLogger(OURS)  # of parts that are given no log, since the owner's code makes them (workers/mcp/)
    below.handlers, below.propagate = [handler], False
    below.setLevel(LEVELS[level])
    if queue := queue_of(sys.stderr):
        queue.tell_lost = formatter.lost_lines
    return Log(logger)


def where(error: BaseException) -> str:
    """Returns `file.py:12`: the innermost line of the owner's code that the exception came through, or what it was raised from; else of any code."""
    places = [traceback.extract_tb(one.__traceback__) for one in _what_led_to(error)]
    return next(filter(None, map(owners_place, places)), "") or _innermost(places[0])


def _what_led_to(error: BaseException) -> list[BaseException]:
    """Returns an exception and those it was raised from, of a group the first one. They may lead in a circle."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(chain) < MOST_OF_A_CHAIN:
        if isinstance(one, BaseExceptionGroup):
            one = one.exceptions[0]
        else:
            chain.append(one)
            one = one.__cause__ or one.__context__
    return chain


def where_it_stands(task: trio.lowlevel.Task) -> str:
    """Returns the innermost line of the owner's code in which a task is."""
    return _innermost(stacks.of_task(task))


def owners_place(frames: Sequence[traceback.FrameSummary]) -> str:
    """Returns `file.py:12`: the last of these lines that is the owner's, '' if none is."""
    owners = [
        frame
        for frame in frames
        if not frame.filename.startswith((_OURS, _PYTHONS, "<")) and "site-packages" not in frame.filename
    ]
    return _place(owners[-1]) if owners else ""


def _innermost(frames: traceback.StackSummary) -> str:
    return owners_place(frames) or (_place(frames[-1]) if frames else "unknown")


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"


def whole(error: BaseException) -> str:
    """Returns the exception's text and traceback, the last of it where it is long. It may quote a conversation."""
    return "".join(traceback.format_exception(error)).rstrip()[-MOST_TRACEBACK_CHARS:]


def kind(error: BaseException) -> str:
    """Returns the exception's type, with the types in a group. The name is type's own: a class of the owner's may make another, or raise."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return f"{name}[{', '.join(map(kind, error.exceptions))}]" if isinstance(error, BaseExceptionGroup) else name


class LineFormatter(logging.Formatter):
    def __init__(self, consumer: str, *, as_json: bool, with_priority: bool) -> None:
        super().__init__()
        self._consumer = consumer
        self._as_json = as_json
        self._with_priority = with_priority

    def lost_lines(self, count: int) -> str:
        """Returns the line about lost lines."""
        values = {"name": "hashee.worker", "levelno": logging.WARNING, "levelname": "WARNING", "msg": LINES_LOST}
        return self.format(logging.makeLogRecord({**values, "values": {"lines": count}}))

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, object] = {"worker": self._consumer} | getattr(record, "values", {}) | of_log_line()
        if self._as_json:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            line = {"event": record.getMessage(), "level": record.levelname.lower()} | values
            return json.dumps(line | {"timestamp": f"{stamp}.{int(record.msecs):03d}Z", "pid": os.getpid()})
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        if self._with_priority:
            prefix = f"<{PRIORITIES.get(record.levelno, 6)}>[hashee] {prefix}"
        else:
            prefix = f"[hashee] {prefix}"
        below = str(values.pop("traceback", ""))
        shown = f"{prefix}{record.getMessage()}" + "".join(f" {k}={v}" for k, v in values.items())
        return shown + "".join(f"\n{prefix}| {one}" for one in below.splitlines())


def _is_the_journal(environ: Mapping[str, str]) -> bool:
    """Returns whether stderr itself goes to the journal, which takes a line's priority from its beginning."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _wants_json(environ: Mapping[str, str], chosen: str) -> bool:
    if chosen in {"json", "console"}:
        return chosen == "json"
    return not sys.stderr.isatty() and "JOURNAL_STREAM" not in environ
