"""Whether the private Redis would load everything that it has written: looked at before each of its starts.

Redis reads only what its manifest names. Without one, or with one that was cut, it starts empty, writes on behind what it has not read, and loads
both together the next time. Such files are left as they are, and said.
"""

import errno
import os
import re
from pathlib import Path
from typing import Final

from host.redis_folder import MANIFEST_FILE
from host.whole_file import is_regular, read_whole

PART_ENDING: Final = ".incr.aof"
BASE_ENDINGS: Final = (".base.aof", ".base.rdb")
PART: Final = "i"
HISTORY: Final = "h"
"""The type of a file that a rewrite has replaced: Redis removes it, and may have done so already."""

KINDS: Final = ("b", HISTORY, PART)
MOST_MANIFEST_BYTES: Final = 1 << 20
UNREADABLE_FILE: Final = re.compile(r"reading the append only file (?:\S*/)?([\w.-]+\.(?:aof|rdb))")
"""How Redis and Valkey say in their log, as their last words, that a file is damaged. What they advise cuts off all that is behind the damage."""


class StoreDamaged(Exception):
    """The private Redis' files cannot be loaded whole; a start would lose what they hold. The text names the file and what helps."""

    def __init__(self, what: str, folder: Path) -> None:
        data_dir = folder.parent
        super().__init__(
            f"the private Redis is not started: {what}; bring a backup back: hashee-agent restore FILE --over-newer-store (without one: move "
            f"{data_dir.name} and grants.head out of {data_dir.parent}, which begins a new store; what is in the old one is lost)"
        )


def refuse_damaged(folder: Path) -> None:
    """Raises StoreDamaged where a server on the append-only files in `folder` would not load all of them, PermissionError. Changes nothing."""
    if (fault := _fault_of(folder)) is not None:
        raise StoreDamaged(fault, folder)


def damaged_by_its_log(lines: list[str], folder: Path) -> StoreDamaged | None:
    """Returns what to raise where a server's last words say that it could not read one of its files, else None."""
    found = next((match for line in lines if (match := UNREADABLE_FILE.search(line))), None)
    return None if found is None else StoreDamaged(f"{folder / found[1]} is damaged", folder)


def _fault_of(folder: Path) -> str | None:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError as problem:
        return f"{folder}: {problem.strerror}"
    manifest = folder / MANIFEST_FILE
    if MANIFEST_FILE not in names:
        parts = (name for name in names if name.endswith((PART_ENDING, *BASE_ENDINGS)))
        held = next((name for name in parts if _holds_something(folder / name)), None)
        return None if held is None else f"{manifest} is missing, and {held} is not read without it"
    try:
        named = _entries(read_whole(manifest, MOST_MANIFEST_BYTES))
    except PermissionError:
        raise
    except OSError as problem:
        return f"{manifest}: {problem.strerror}"
    except ValueError:
        return f"{manifest} is damaged"
    return _fault_of_named(folder, named, names)


def _fault_of_named(folder: Path, named: dict[str, tuple[int, str]], names: list[str]) -> str | None:
    for name, (_, kind) in named.items():
        if kind != HISTORY and not is_regular(folder / name):
            return f"{folder / name} {'is no file' if name in names else 'is missing'}, and {MANIFEST_FILE} names it"
        if kind != HISTORY and not os.access(folder / name, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / name))
    last = max((number for number, kind in named.values() if kind == PART), default=0)
    for name in names:
        # A rewrite makes a part empty and then names it: one that holds something and is not named was lost from the manifest.
        if (
            name.endswith(PART_ENDING)
            and name not in named
            and _number(name) > last
            and _holds_something(folder / name)
        ):
            return f"{folder / MANIFEST_FILE} is cut or older: it does not name {name}, which is there"
    return None


def _entries(manifest: bytes) -> dict[str, tuple[int, str]]:
    """Returns number and type of each file that a manifest names; later servers add words of their own. Raises ValueError for what is none."""
    found: dict[str, tuple[int, str]] = {}
    for line in manifest.decode("ascii").splitlines():
        if line.startswith("#"):
            continue
        words = line.split()
        said = dict(zip(words[::2], words[1::2], strict=True))
        name, number, kind = said.get("file", ""), int(said.get("seq", "")), said.get("type", "")
        if not name or "/" in name or kind not in KINDS or name in found:
            raise ValueError("no entry of a manifest")
        found[name] = number, kind
    if not found or not manifest.endswith(b"\n"):
        raise ValueError("cut")
    return found


def _number(name: str) -> int:
    number = name.removesuffix(PART_ENDING).rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return True
