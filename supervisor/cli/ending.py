"""Decides what a command that failed writes to stderr, and its exit status.

A refused configuration ends with 78 and names the setting, also if it comes in groups of exceptions. Anything else is a crash: its types and
places are shown but not its text, since an exception's text may quote a message or a key.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import TypeGuard

from bus.settings.reader import SettingsError
from host.append_only import StoreDamaged
from host.embedded import ServerMissing
from host.log_stream import NullDeviceUnusable
from host.reasons import FULL, fault_of_file, fault_of_output, leaves_of, remedy_of_threads
from host.socket_place import RuntimeDirectoryUnsafe
from supervisor.control.control_socket import ControlTaken
from supervisor.keeper.state_directory import AlreadyRunning
from supervisor.settings.env_files import EnvFileError
from supervisor.settings.secrets import JournalDamaged, RestoreUnfinished, RotationUnfinished, StoreSecretDamaged

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: starting again does not help
EXIT_CRASHED = 70  # EX_SOFTWARE
EXIT_INTERRUPTED = 130
EXIT_OUTPUT = 74  # EX_IOERR: what was to be said, or kept, could not be written
PLACES_SHOWN = 8
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
REFUSALS = (
    SettingsError,
    EnvFileError,
    AlreadyRunning,
    ControlTaken,
    ServerMissing,
    NullDeviceUnusable,
    RuntimeDirectoryUnsafe,
    StoreDamaged,
    JournalDamaged,
    StoreSecretDamaged,
    RotationUnfinished,
    RestoreUnfinished,
)


@dataclass(frozen=True)
class Ending:
    """The exit status, and the `line` for stderr, or None."""

    status: int
    line: str | None


def ending_of(problem: BaseException) -> Ending:
    """Returns how the process ends after `problem`, which may be a group."""
    leaves = list(leaves_of(problem))
    for leaf in leaves:
        if isinstance(leaf, REFUSALS):
            return Ending(EXIT_CONFIGURATION, _one_line(str(leaf)))
    if len(leaves) == 1 and (fault := fault_of_output(leaves[0])):
        return Ending(EXIT_OUTPUT, fault)
    if full := next((leaf for leaf in leaves if isinstance(leaf, OSError) and leaf.errno in FULL), None):
        return Ending(EXIT_OUTPUT, fault_of_file(full))
    if refused := next((leaf for leaf in leaves if _is_refused_file(leaf)), None):
        return Ending(EXIT_CONFIGURATION, fault_of_file(refused))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return Ending(EXIT_INTERRUPTED, None)
    return Ending(EXIT_CRASHED, "crashed: " + "; ".join(map(_type_and_places, leaves)))


def _is_refused_file(problem: BaseException) -> TypeGuard[OSError]:
    """Returns whether a named file may not be used by this user, or stands where nothing can be written."""
    return isinstance(problem, OSError) and problem.errno in REFUSED and problem.filename is not None


def _type_and_places(problem: BaseException) -> str:
    frames = [frame for frame in extract_tb(problem.__traceback__) if not frame.filename.startswith("<frozen ")]
    frames = frames[-PLACES_SHOWN:]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)]
    what = type(problem).__name__
    if isinstance(problem, ImportError):
        what += f" ({_one_line(str(problem))})"  # it only names modules
    if remedy := remedy_of_threads(problem):
        what += f" ({remedy})"
    return f"{what} at {' < '.join(places) or 'no place'}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
