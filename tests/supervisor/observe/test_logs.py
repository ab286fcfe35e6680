"""Logs: readable for a person, JSON for a collector, and never the text of an exception."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from supervisor.observe.logs import configure_logging, wants_json
from supervisor.settings.keeper import LogSettings
from supervisor.settings.secrets import Secret

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
    assert stream.getvalue().startswith("[hashee] error: some.library: ERROR at=test_logs:")
    assert "words" not in stream.getvalue()


@pytest.mark.parametrize("library", ["hypercorn.error", "httpx2", "trio-websocket", "redis"])
def test_other_libraries_come_the_same_way_as_json(library: str) -> None:
    stream = logged("json")
    logging.getLogger(library).warning("payload was %s", "the person's words")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["role"]) == (f"{library}: WARNING", "warning", "keeper")
    assert "words" not in stream.getvalue()


def test_the_journal_gets_priorities_and_a_file_beside_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        (tmp_path / "journal").open("w+", encoding="utf-8") as journal,
        (tmp_path / "file").open("w+", encoding="utf-8") as file,
    ):
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        for stream in (journal, file):
            configure_logging(LogSettings("info", "console"), "keeper", stream)
            structlog.get_logger().warning("redis: died")
            structlog.get_logger().info("redis: ready")
        journal.seek(0)
        file.seek(0)
        assert journal.read() == "<4>[hashee] warning: redis: died\n<6>[hashee] redis: ready\n"
        assert file.read() == "[hashee] warning: redis: died\n[hashee] redis: ready\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("no_color", "line"), [("", "\x1b[31m[hashee] error: x\x1b[0m\n"), ("1", "[hashee] error: x\n")]
)
def test_a_terminal_gets_colours_unless_it_wants_none(
    no_color: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    configure_logging(LogSettings("info", "auto"), "keeper", stream)
    structlog.get_logger().error("x")
    assert stream.getvalue() == line


def test_auto_is_for_people_on_a_terminal_and_in_the_journal_and_json_elsewhere() -> None:
    assert not wants_json("auto", is_terminal=True, environ={})
    assert not wants_json("auto", is_terminal=False, environ={"JOURNAL_STREAM": "8:1"})
    assert wants_json("auto", is_terminal=False, environ={})
    assert wants_json("json", is_terminal=True, environ={})
