"""Where the relay keeps ciphertext: in files, so that neither 100 MB nor many of them stand in its memory.

Beside a state file they stay; without one they have no name, and are gone with the process.
"""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Protocol

PARTIAL = ".partial"


class Reading(Protocol):
    """What is kept of an upload, from its beginning."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def close(self) -> None: ...


class Shelf(Protocol):
    def begin(self) -> IO[bytes]:
        """Returns a file to write an upload to; nobody sees it before `keep`, and after `drop` it never was."""

    def keep(self, upload_id: str, file: IO[bytes]) -> None:
        """Takes what was written in place of what there was of this upload."""

    def drop(self, file: IO[bytes]) -> None: ...

    def open(self, upload_id: str) -> Reading | None:
        """Returns what is kept of an upload, to be read from its beginning and closed; None where there is nothing."""

    def forget(self, upload_id: str) -> None: ...


class NamelessShelf:
    """Files without names."""

    def __init__(self) -> None:
        self._kept: dict[str, IO[bytes]] = {}

    def begin(self) -> IO[bytes]:
        return TemporaryFile()

    def drop(self, file: IO[bytes]) -> None:
        file.close()

    def keep(self, upload_id: str, file: IO[bytes]) -> None:
        self.forget(upload_id)
        file.flush()
        self._kept[upload_id] = file

    def open(self, upload_id: str) -> Reading | None:
        kept = self._kept.get(upload_id)
        return None if kept is None else _FromItsBeginning(kept)

    def forget(self, upload_id: str) -> None:
        if (known := self._kept.pop(upload_id, None)) is not None:
            known.close()


class _FromItsBeginning:
    """Reads a file that stays open from a place of its own; closing it closes nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self._at = 0

    def read(self, size: int, /) -> bytes:
        piece = os.pread(self._descriptor, size, self._at)
        self._at += len(piece)
        return piece

    def seek(self, offset: int, /) -> int:
        self._at = offset
        return offset

    def close(self) -> None: ...


class FolderShelf:
    """Files in a folder, which is made for the first one, named by their uploads."""

    def __init__(self, folder: Path) -> None:
        for left in folder.glob(f"*{PARTIAL}"):  # of a relay that was killed
            left.unlink()
        self._folder = folder

    def begin(self) -> IO[bytes]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return NamedTemporaryFile(dir=self._folder, suffix=PARTIAL, delete=False)

    def drop(self, file: IO[bytes]) -> None:
        file.close()
        Path(file.name).unlink()

    def keep(self, upload_id: str, file: IO[bytes]) -> None:
        file.close()
        Path(file.name).rename(self._folder / upload_id)

    def open(self, upload_id: str) -> Reading | None:
        path = self._folder / upload_id
        return path.open("rb") if path.exists() else None

    def forget(self, upload_id: str) -> None:
        (self._folder / upload_id).unlink(missing_ok=True)
