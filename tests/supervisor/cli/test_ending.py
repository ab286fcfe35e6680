"""How a failed command ends: a refusal is found in any group, a crash shows where and never what."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

import click
import pytest
from rich.console import Console

from bus.settings.reader import SettingsError
from supervisor.cli.ending import ending_of
from supervisor.cli.keys.telling import told

pytestmark = pytest.mark.pure


def raised(problem: Exception) -> Exception:
    """The same with a traceback."""
    return problem.with_traceback(place())


def place() -> TracebackType | None:
    try:
        int("no number")
    except ValueError as caught:
        return caught.__traceback__
    return None


def test_a_refusal_is_78_and_its_line_however_deep_in_groups_it_is() -> None:
    refusal = SettingsError("HASHEE_REDIS_URL", "redis://…")
    ending = ending_of(ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("x"), refusal])]))
    assert (ending.status, ending.line) == (78, str(refusal))


def test_a_crash_shows_types_and_places_and_no_text() -> None:
    problem = raised(ExceptionGroup("group", [raised(ValueError("the person's words")), raised(KeyError("secret"))]))
    ending = ending_of(problem)
    assert ending.status == 70
    assert ending.line is not None
    assert ending.line.startswith("crashed: ValueError at test_ending.py:")
    assert "KeyError at test_ending.py:" in ending.line
    assert "words" not in ending.line
    assert "secret" not in ending.line


def test_a_thread_that_cannot_be_started_is_told_with_what_helps() -> None:
    line = ending_of(raised(RuntimeError("can't start new thread"))).line
    assert line is not None
    assert "TasksMax=" in line
    assert "(" not in str(ending_of(raised(RuntimeError("the person's words"))).line)


def test_a_full_disk_is_told_with_the_file_and_what_helps() -> None:
    ending = ending_of(
        ExceptionGroup("group", [raised(OSError(errno.ENOSPC, "No space left on device", "/state/lock"))])
    )
    assert ending.status == 74
    assert ending.line == "/state/lock: No space left on device; make room on the disk: df -h; df -i"


def test_ctrl_c_says_nothing() -> None:
    assert ending_of(BaseExceptionGroup("group", [KeyboardInterrupt()])).line is None
    assert ending_of(KeyboardInterrupt()).status == 130


def test_a_module_that_cannot_be_imported_is_named() -> None:
    line = ending_of(raised(ImportError("cannot import name 'Agent'"))).line
    assert line is not None
    assert "ImportError (cannot import name 'Agent') at test_ending.py:" in line


@pytest.mark.parametrize("say", [lambda full: click.echo("x", file=full), lambda full: Console(file=full).print("x")])
def test_what_a_command_says_into_a_full_output_is_no_file_of_its_own(say: Callable[[TextIO], None]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        with pytest.raises(OSError, match="No space") as caught, told():
            say(full)
        with Path(os.devnull).open("w", encoding="utf-8") as nothing:  # which takes what is left when it is closed
            os.dup2(nothing.fileno(), full.fileno())
    ending = ending_of(caught.value)
    assert (ending.status, ending.line) == (74, "the output cannot be written: No space left on device")


def test_a_file_of_a_command_that_finds_no_room_is_told_by_its_name() -> None:
    with pytest.raises(click.ClickException, match="a backup: No space left on device; make room"), told():
        raise OSError(errno.ENOSPC, "No space left on device", "a backup")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_this_user_may_not_use_is_a_refusal_that_names_it(number: int) -> None:
    ending = ending_of(ExceptionGroup("group", [raised(OSError(number, os.strerror(number), "/state/redis"))]))
    assert ending.status == 78
    assert ending.line is not None
    assert ending.line.startswith(f"/state/redis: {os.strerror(number)}; ")
    assert ending_of(raised(OSError(number, os.strerror(number)))).status == 70
