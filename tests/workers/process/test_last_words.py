"""What is said of the exception that ends a worker."""

import gc
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from workers.process.last_words import LastWords
from workers.process.logs import where, worker_log

pytestmark = pytest.mark.pure


@pytest.fixture(autouse=True)
def hooks_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = logging.getLogger("trio.async_generator_errors")
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for logger in (generators, logging.getLogger("hashee")):
        monkeypatch.setattr(logger, "handlers", logger.handlers)
        monkeypatch.setattr(logger, "propagate", logger.propagate)


@pytest.mark.parametrize(("text", "is_told"), [("can't start new thread", True), ("the person's words", False)])
def test_a_thread_that_cannot_be_started_is_told_with_what_helps(text: str, is_told: bool) -> None:
    words = LastWords(worker_log({}, "w", level="error", line_format="json"), is_heard=False)
    crashed = words.of_the_end(RuntimeError(text))
    assert crashed.exception.startswith("RuntimeError")
    assert ("TasksMax=" in crashed.exception) is is_told
    assert "words" not in crashed.exception


def test_what_an_unclosed_async_generator_raises_is_told_by_its_place_and_quotes_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = LastWords(worker_log({}, "w", level="info", line_format="console"), is_heard=False)
    words.install()

    async def quotes() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise LookupError("what a person wrote")

    async def leaves_it() -> None:
        async for _ in quotes():
            break
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()

    trio.run(leaves_it)
    shown = capsys.readouterr().err
    assert (
        "an async generator that was not closed has raised worker=w exception=LookupError at=test_last_words.py:"
        in shown
    )
    assert "what a person wrote" not in shown


def test_where_an_exception_arose_is_the_owners_line_though_a_library_has_raised_another_from_it() -> None:
    first, last = KeyError("a"), json.JSONDecodeError("b", "", 0)
    first.__cause__, last.__context__ = last, first  # a circle
    try:
        raise first
    except KeyError:
        assert where(last).startswith("test_last_words.py:")
