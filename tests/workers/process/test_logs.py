"""What the owner's code does to logging and to the standard streams: the worker's own log goes on, and raises nothing into its work."""

import json
import logging
import logging.config
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from host.log_stream import drain_streams, log_stream
from workers.process.logs import worker_log

pytestmark = pytest.mark.pure


def refuse(*_arguments: object, **_named: object) -> logging.LogRecord:
    raise RuntimeError("a factory of the owner's")


def closed(stream: TextIO) -> None:
    stream.close()


DEEDS: dict[str, Callable[[], object]] = {
    "disables all": lambda: logging.disable(logging.CRITICAL),
    "has a factory of its own": lambda: logging.setLogRecordFactory(refuse),
    "closes stderr": lambda: closed(sys.stderr),
    "has none": lambda: setattr(sys, "stderr", None),
    "ends logging": logging.shutdown,
}


@contextmanager
def stderr_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    former = logging.getLogRecordFactory()
    with monkeypatch.context() as patched:
        ours = logging.getLogger("hashee")
        patched.setattr(ours, "handlers", ours.handlers)
        patched.setattr(ours, "propagate", ours.propagate)
        stderr = log_stream(writing)  # one for both, as `divert_stderr` makes it
        for name in ("stderr", "__stderr__"):
            patched.setattr(sys, name, stderr)
        try:
            yield reading
        finally:
            logging.setLogRecordFactory(former)
            logging.disable(logging.NOTSET)
    os.close(reading)


@pytest.mark.parametrize("deed", DEEDS)
def test_the_owners_code_neither_silences_nor_breaks_the_log(deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_read(monkeypatch) as reading:
        log = worker_log({}, "w", level="info", line_format="console")
        DEEDS[deed]()
        log.info("said", number=1)
        drain_streams()
        assert os.read(reading, 1000) == b"[hashee] said worker=w number=1\n"


def test_a_line_whose_values_cannot_be_written_says_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_read(monkeypatch) as reading:
        log = worker_log({}, "w", level="info", line_format="json")
        monkeypatch.setattr(json, "dumps", refuse)
        log.warning("it has happened", number=1)
        drain_streams()
        said = b"[hashee] error: it has happened (its values cannot be written: RuntimeError)\n"
        assert os.read(reading, 1000) == said


def test_the_level_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_read(monkeypatch) as reading:
        log = worker_log({}, "w", level="warning", line_format="console")
        log.info("not said")
        log.error("said")
        drain_streams()
        assert os.read(reading, 1000) == b"[hashee] error: said worker=w\n"
