"""The key of the gate's callers in the state directory: a supervisor writes it, the gate beside it reads it.

It comes from the bus key, and opens nothing: whoever has it may call the gate. A rotation of the store secret changes it, so the gate looks again
when a proof does not fit.
"""

from pathlib import Path

from bus.files.proofs import KEY_BYTES, FilesKey
from host.private_files import write_over
from host.whole_file import read_whole

FILES_KEY_FILE = "files.key"


def write_files_key(state_dir: Path, key: FilesKey) -> None:
    """Writes it where it is not there already. Raises OSError."""
    path = state_dir / FILES_KEY_FILE
    if read_files_key(path) != key.export():
        write_over(path, key.export())


def read_files_key(path: Path) -> bytes | None:
    """Returns the raw key; None where there is none, or something else."""
    try:
        raw = read_whole(path, KEY_BYTES + 1)
    except OSError:
        return None
    return raw if len(raw) == KEY_BYTES else None


class KnownKey:
    """The key as the gate knows it: given once, or read from a file, and again when that has changed."""

    def __init__(self, given: FilesKey | None, path: Path | None) -> None:
        self._key = given
        self._path = path if given is None else None
        self._seen: tuple[int, int] | None = None

    def current(self) -> FilesKey | None:
        """Returns the key that holds now; None while no supervisor has written one. The last one stays when the file goes."""
        if self._path is None:
            return self._key
        try:
            status = self._path.stat()
        except OSError:
            return self._key
        looks = (status.st_ino, status.st_mtime_ns)
        if looks != self._seen and (raw := read_files_key(self._path)) is not None:
            self._key, self._seen = FilesKey(raw), looks
        return self._key
