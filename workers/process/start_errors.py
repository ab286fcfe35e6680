"""What is said of an exception that comes before the first job: a line with its place. It may have its text, since nobody has written yet.

A variable of the environment that is not set, an exit that the owner asked for, and a mistake in the code are the owner's to mend: trying again
does not help. Whatever else is raised may be a service that is away, and is tried again.
"""

import importlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bus.records.control import StartFailed
from workers.process.logs import kind

MISTAKES = (NameError, ImportError, SyntaxError)
MISTAKES_IN_THEIR_LINE = (TypeError, AttributeError)
"""Mistakes where a line of the owner's own raises them; from within a library they may come of what a service has answered."""


def report_of(error: BaseException, directory: Path, what: str, *, ours: str = "") -> StartFailed:
    """Returns the report: at the innermost line of the owner's `directory`, else of any code; without a place if that is the file `ours`."""
    last_line = missing_variable(error) or traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return StartFailed(
            kind=what, exception=kind(error), file=error.filename or "", line=error.lineno or 0, last_line=last_line
        )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename != importlib.__file__
    ]
    owners = [frame for frame in frames if _is_the_owners(frame.filename, directory)]
    frame = (owners or frames)[-1]
    has_place = frame.filename != ours
    return StartFailed(
        kind=what,
        exception=kind(error),
        file=frame.filename if has_place else "",
        line=(frame.lineno or 0) if has_place else 0,
        last_line=last_line,
    )


def is_the_owners_to_mend(error: BaseException, directory: Path) -> bool:
    """Returns whether trying again cannot help. `directory`: where the owner's code is."""
    if isinstance(error, MISTAKES_IN_THEIR_LINE):
        places = [frame.f_code.co_filename for frame in _frames_of(error)]
        return bool(places) and _is_the_owners(places[-1], directory)
    return isinstance(error, (SystemExit, *MISTAKES)) or missing_variable(error) is not None


def _is_the_owners(filename: str, directory: Path) -> bool:
    return Path(filename).is_relative_to(directory) and "site-packages" not in Path(filename).parts


def missing_variable(error: BaseException) -> str | None:
    """Returns what is to be said where `os.environ[…]` has no such variable, else None."""
    if not isinstance(error, KeyError):
        return None
    *_, innermost = [None, *_frames_of(error)]
    if innermost is None or innermost.f_locals.get("self") is not os.environ:
        return None
    return f"the environment variable {error.args[0]} is not set"


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    place = error.__traceback__
    while place is not None:
        yield place.tb_frame
        place = place.tb_next
