"""A state directory's store is replaced by the one that was prepared in it: by renames that a journal names before the first is done.

Without the journal the old store stands, and what was prepared is litter; with it the new one does, and whoever starts next completes what is left of
the renames. The journal comes with one rename and goes with the last step, so that there is no third case. The keeper does this
before anything else: it knows no key, and needs none.
"""

import os
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from host.private_files import FOLDER_MODE, sync_folder, write_over
from supervisor.keeper.state_directory import AlreadyRunning, take_lock
from supervisor.settings.secrets import RESTORE_JOURNAL_FILE

PREPARED = "restoring"
JOURNAL_FORMAT = 1


class Journal(msgspec.Struct, frozen=True):
    """What is to be done, of things in the state directory by their names: `replaced` by what was prepared, or only `removed`.

    `aside`: the folder in which the old ones are kept. `what`: the backup, for people.
    """

    format: int
    aside: str
    replaced: list[str]
    removed: list[str]
    what: str


class After(msgspec.Struct, frozen=True):
    """What an interrupted restore has left: the `new` state, which was completed now, or the `old` one. `text` says it to people."""

    state: Literal["old", "new"]
    text: str


def prepared_place(state_dir: Path) -> Path:
    """Where a restore prepares what takes the place of the old."""
    return state_dir / PREPARED


def is_decided(state_dir: Path) -> bool:
    """Whether a restore is to be completed."""
    return (state_dir / RESTORE_JOURNAL_FILE).exists()


def clean(state_dir: Path) -> bool:
    """Nothing that was prepared and not decided is left; whether something was. Raises OSError."""
    if not prepared_place(state_dir).exists():
        return False
    shutil.rmtree(prepared_place(state_dir))
    return True


def decide(state_dir: Path, journal: Journal) -> None:
    """What was prepared counts from now on. All of it is on the disk. Raises OSError."""
    sync_folder(prepared_place(state_dir))
    write_over(state_dir / RESTORE_JOURNAL_FILE, msgspec.json.encode(journal))


def complete(state_dir: Path) -> Journal | None:
    """Does what is left of a decided restore; None where none is. The caller holds the lock. Raises OSError, msgspec.DecodeError."""
    if not is_decided(state_dir):
        return None
    journal = msgspec.json.decode((state_dir / RESTORE_JOURNAL_FILE).read_bytes(), type=Journal)
    aside, prepared = state_dir / journal.aside, prepared_place(state_dir)
    aside.mkdir(mode=FOLDER_MODE, exist_ok=True)
    for name in journal.replaced:
        if os.path.lexists(prepared / name):  # else it was done before
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
    """Completes or cleans up what an interrupted restore has left, and says which state counts; None where nothing was left, or where
    somebody runs on the state directory. Raises OSError, msgspec.DecodeError, SettingsError.
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
