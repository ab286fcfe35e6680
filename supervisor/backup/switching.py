"""Replaces a state directory's store by the one that was prepared in it, by renames that a journal lists before the first is done.

Without the journal the old store counts, and what was prepared is litter. With it the new store counts, and whoever starts next completes
the renames. The journal appears by one rename and is removed by the last step, so there is no third case. The keeper completes it
before anything else; that needs no key.
"""

import os
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from host.private_files import FOLDER_MODE, sync_folder, write_over
from host.unreadable import UNREADABLE
from host.whole_file import read_whole
from supervisor.keeper.state_directory import AlreadyRunning, take_lock
from supervisor.settings.secrets import RESTORE_JOURNAL_FILE, JournalDamaged

PREPARED = "restoring"
JOURNAL_FORMAT = 1
MOST_JOURNAL_BYTES = 1 << 20


class Journal(msgspec.Struct, frozen=True):
    """The names in the state directory that are `replaced` by prepared ones, or only `removed`.

    `aside`: the folder in which the old ones are kept. `what`: describes the backup for people.
    """

    format: int
    aside: str
    replaced: list[str]
    removed: list[str]
    what: str


class After(msgspec.Struct, frozen=True):
    """Which state counts after an interrupted restore: the `new` one, which was completed now, or the `old` one. `text`: for people."""

    state: Literal["old", "new"]
    text: str


def prepared_place(state_dir: Path) -> Path:
    """Returns the folder in which a restore prepares the new store."""
    return state_dir / PREPARED


def is_decided(state_dir: Path) -> bool:
    """Returns whether a restore is decided and is to be completed."""
    return (state_dir / RESTORE_JOURNAL_FILE).exists()


def clean(state_dir: Path) -> bool:
    """Removes what was prepared and not decided; returns whether there was anything. Raises OSError."""
    if not prepared_place(state_dir).exists():
        return False
    shutil.rmtree(prepared_place(state_dir))
    return True


def decide(state_dir: Path, journal: Journal) -> None:
    """Writes the journal, so that the new store counts; all of it must be on the disk. Raises OSError."""
    sync_folder(prepared_place(state_dir))
    write_over(state_dir / RESTORE_JOURNAL_FILE, msgspec.json.encode(journal))


def complete(state_dir: Path) -> Journal | None:
    """Completes a decided restore; returns its journal, None if there is none. The caller holds the lock. Raises OSError, JournalDamaged."""
    if not is_decided(state_dir):
        return None
    try:
        journal = msgspec.json.decode(read_whole(state_dir / RESTORE_JOURNAL_FILE, MOST_JOURNAL_BYTES), type=Journal)
    except UNREADABLE:
        raise JournalDamaged(state_dir) from None
    aside, prepared = state_dir / journal.aside, prepared_place(state_dir)
    aside.mkdir(mode=FOLDER_MODE, exist_ok=True)
    for name in journal.replaced:
        if os.path.lexists(prepared / name):  # otherwise this rename was done before
            _put_aside(state_dir / name, aside / name)
            (prepared / name).rename(state_dir / name)
    for name in journal.removed:
        _put_aside(state_dir / name, aside / name)
    sync_folder(aside)
    sync_folder(state_dir)
    if prepared.exists():
        shutil.rmtree(prepared)
    (state_dir / RESTORE_JOURNAL_FILE).unlink()
    sync_folder(state_dir)
    return journal


def after_interruption(state_dir: Path) -> After | None:
    """Completes or cleans up an interrupted restore; returns which state counts, None if there was none or the agent runs.

    Raises OSError, JournalDamaged, SettingsError.
    """
    if not (is_decided(state_dir) or prepared_place(state_dir).exists()):
        return None
    try:
        lock = take_lock(state_dir, patience_seconds=0.0)
    except AlreadyRunning:
        return None
    try:
        journal = complete(state_dir)
        if journal is not None:
            return After("new", f"an interrupted restore was completed: the state is that of {journal.what}")
        if clean(state_dir):
            return After("old", "an interrupted restore had not been decided: the state is the one before it")
        return None
    finally:
        os.close(lock)


def _put_aside(place: Path, kept: Path) -> None:
    if os.path.lexists(place) and not os.path.lexists(kept):
        place.rename(kept)
