"""Where things stand for these settings: state, sockets, what must be found again in memory, the user's home."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from bus.settings.reader import SettingsReader
from bus.settings.shared import agent_id_of
from host.socket_place import SHORT_DIR
from supervisor.settings import parsers
from supervisor.settings.state_place import state_place
from supervisor.settings.table import STATE_DIR

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only a folder in it that nobody else can enter


def control_directories(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """State and runtime directory, one of which holds the control socket. Raises SettingsError."""
    reader = SettingsReader(environ)
    directory = state_dir_of(reader, agent_id_of(reader))
    reader.finish()
    return directory, runtime_dir_of(environ)


def state_dir_of(reader: SettingsReader, agent_id: str) -> Path:
    """HASHEE_STATE_DIR, else systemd's StateDirectory=, else the user's own state directory; in a lent one a folder of ours."""
    given = reader.optional(STATE_DIR, parsers.absolute_path)
    if given is None and (systemd := reader.environ.get("STATE_DIRECTORY")):
        given = Path(systemd.split(":", maxsplit=1)[0])
    if given is not None:
        return state_place(given)
    home = home_of(reader.environ)
    if home is None:
        if not reader.is_given(STATE_DIR):
            reader.refuse(STATE_DIR, missing=True)
        return Path(os.devnull)  # which no one sees, since `finish` raises
    return home / ".local" / "state" / "hashee-agent" / agent_id


def runtime_dir_of(environ: Mapping[str, str]) -> Path:
    """Where a socket goes whose path in the state directory would be too long; nothing is looked for there otherwise."""
    systemd = environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    given = (systemd, environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""))
    return next((Path(one) for one in given if Path(one).is_absolute()), SHORT_DIR)


def memory_places_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a file in memory may stand that has to be found again at the next start, whoever starts us; which of them are in memory shows later.

    systemd's RuntimeDirectory= first, which it keeps for us (RuntimeDirectoryPreserve=). /dev/shm before XDG_RUNTIME_DIR, which a login by
    another way does not have.
    """
    systemd = environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    named = (systemd, str(SHARED_MEMORY), environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), str(SHORT_DIR))
    return tuple(dict.fromkeys(Path(one) for one in named if Path(one).is_absolute()))


def home_of(environ: Mapping[str, str]) -> Path | None:
    """The user's home, by the environment or by their entry in the password file; None where neither says."""
    given = Path(environ.get("HOME", ""))
    if given.is_absolute():
        return given
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None
