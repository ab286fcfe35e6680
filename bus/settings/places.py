"""Where an agent's state and its control socket stand for these settings, and the user's home: each of its processes finds the same."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from bus.settings.reader import Malformed, SettingsReader
from bus.settings.shared import STATE_DIR, agent_id_of
from bus.settings.state_place import state_place
from host.socket_place import SHORT_DIR, place_of_socket

CONTROL_SOCKET = "control.sock"


def control_directories(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """State and runtime directory, one of which holds the control socket. Raises SettingsError."""
    reader = SettingsReader(environ)
    directory = state_dir_of(reader, agent_id_of(reader))
    reader.finish()
    return directory, runtime_dir_of(environ)


def control_place(state_dir: Path, runtime_dir: Path) -> Path:
    """Returns the path of the control socket, without making anything. Raises RuntimeDirectoryUnsafe, OSError."""
    return place_of_socket(state_dir / CONTROL_SOCKET, state_dir, runtime_dir)


def absolute_path(text: str) -> Path:
    """Parses a path that does not depend on where the process runs. Raises Malformed."""
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise Malformed
    return path


def state_dir_of(reader: SettingsReader, agent_id: str) -> Path:
    """HASHEE_STATE_DIR, else systemd's StateDirectory=, else the user's own state directory; in a lent one a folder of ours."""
    given = reader.optional(STATE_DIR, absolute_path)
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


def home_of(environ: Mapping[str, str]) -> Path | None:
    """The user's home, by the environment or by their entry in the password file; None where neither says."""
    given = Path(environ.get("HOME", ""))
    if given.is_absolute():
        return given
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None
