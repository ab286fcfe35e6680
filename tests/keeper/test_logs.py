"""Logs: readable for a person, JSON for a collector, and never the text of an exception."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from supervisor.config import LogSettings
from supervisor.logs import configure_logging, wants_json
from supervisor.secrets import Secret

pytestmark = pytest.mark.pure


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def logged(log_format: str) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(LogSettings("info", log_format), "keeper", stream)
    return stream


def fail_with(text: str) -> None:
    raise ValueError(text)


def test_the_console_line_has_the_event_first_and_then_its_values() -> None:
    stream = logged("console")
    log = structlog.get_logger()
    log.debug("not shown")
    log.info("connection: connected")
    log.warning("redis: died", status=-9, why="out of memory")
    assert stream.getvalue() == (
        "[hashee] connection: connected\n[hashee] warning: redis: died status=-9 why='out of memory'\n"
    )


def test_a_json_line_says_who_speaks_and_when() -> None:
    stream = logged("json")
    structlog.get_logger().info("connection: connected", slot=1)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["slot"], line["role"], line["level"]) == ("connection: connected", 1, "keeper", "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_is_shown_by_type_and_place_only(log_format: str) -> None:
    stream = logged(log_format)
    try:
        fail_with("the person's words")
    except ValueError:
        structlog.get_logger().exception("handler: failed")
    assert "words" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert "test_logs.py:" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_bytes_and_secrets_are_hidden(log_format: str) -> None:
    stream = logged(log_format)
    structlog.get_logger().info("key", key=b"raw key", token=Secret("hsk_x"))
    assert "raw key" not in stream.getvalue()
    assert "hsk_x" not in stream.getvalue()


def test_other_libraries_show_who_speaks_and_where_and_not_what() -> None:
    stream = logged("console")
    logging.getLogger("some.library").error("payload was %s", "the person's words")
    assert stream.getvalue().startswith("[hashee] some.library: ERROR at test_logs:")
    assert "words" not in stream.getvalue()


def test_auto_is_for_people_on_a_terminal_and_in_the_journal_and_json_elsewhere() -> None:
    assert not wants_json("auto", is_terminal=True, environ={})
    assert not wants_json("auto", is_terminal=False, environ={"JOURNAL_STREAM": "8:1"})
    assert wants_json("auto", is_terminal=False, environ={})
    assert wants_json("json", is_terminal=True, environ={})
