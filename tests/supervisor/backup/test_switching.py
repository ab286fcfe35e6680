"""A state directory changes from the old store to the prepared one in one step: ended at any moment, whoever comes next has one of the two."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.backup import switching
from supervisor.backup.switching import Journal, after_interruption, clean, complete, decide, prepared_place
from supervisor.keeper.state_directory import take_lock
from supervisor.settings.secrets import RESTORE_JOURNAL_FILE, JournalDamaged, RestoreUnfinished, load_store_secret

pytestmark = pytest.mark.pure

OLD = {"redis/appendonly": "old", "store.secret": "o" * 32, "grants.head": "old", "redis-seen.json": "old"}
NEW = {"redis/appendonly": "new", "store.secret": "n" * 32}
JOURNAL = Journal(
    1, "before-restore-now", ["redis", "store.secret"], ["grants.head", "redis-seen.json"], "the backup of now"
)
CALLS = ("rename", "replace", "link", "unlink", "mkdir", "rmdir", "fsync")


class Ended(BaseException):
    """The process is gone at this moment."""


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many calls that change something on the disk this process has left; it ends before the next one."""
    left = [10_000]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def one(*arguments: object, **named: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Ended
            return call(*arguments, **named)

        return one

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    yield left
    left[0] = 10_000


def make(state_dir: Path) -> None:
    for place, files in ((state_dir, OLD), (prepared_place(state_dir), NEW)):
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content, encoding="utf-8")


def content_of(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_ended_before_any_change_on_the_disk_the_state_is_the_old_or_becomes_the_new_one(
    tmp_path: Path, lives: list[int]
) -> None:
    seen, moment = set[str](), 0
    kept = {f"before-restore-now/{name}": content for name, content in OLD.items()}
    while moment < 100:
        state_dir = tmp_path / f"{moment}"
        make(state_dir)
        lives[0] = moment
        try:
            decide(state_dir, JOURNAL)
            complete(state_dir)
        except Ended:
            has_ended = True
        else:
            has_ended = False
        lives[0] = 10_000
        for leftover in state_dir.glob(".restore.journal*"):  # a temporary file that was never named
            leftover.unlink()
        if switching.is_decided(state_dir):
            with pytest.raises(RestoreUnfinished, match="restore --finish"):
                load_store_secret(state_dir)
        elif has_ended and content_of(state_dir) != NEW | kept:
            assert {name: found for name, found in content_of(state_dir).items() if "restoring" not in name} == OLD
        after = after_interruption(state_dir)
        state = "none" if after is None else after.state
        seen.add(state)
        if state == "old":
            assert content_of(state_dir) == OLD
        else:
            assert content_of(state_dir) == NEW | kept
        if state == "new":
            assert after is not None
            assert "the backup of now" in after.text
        assert after_interruption(state_dir) is None
        if not has_ended:
            break
        moment += 1
    assert moment > 10
    assert seen == {"old", "new", "none"}


def test_ended_again_while_it_is_completed_it_is_completed_by_the_next(tmp_path: Path, lives: list[int]) -> None:
    for first in range(4, 14, 3):
        for second in range(8):
            state_dir = tmp_path / f"{first}-{second}"
            make(state_dir)
            for moment in (first, second):
                lives[0] = moment
                try:
                    if moment is first and not switching.is_decided(state_dir):
                        decide(state_dir, JOURNAL)
                    complete(state_dir)
                except Ended:
                    continue
                finally:
                    lives[0] = 10_000
            after_interruption(state_dir)
            found = {name: content for name, content in content_of(state_dir).items() if not name.startswith(".")}
            assert {name: found[name] for name in NEW} in (NEW, {name: OLD[name] for name in NEW})


def test_what_was_never_decided_is_litter(tmp_path: Path) -> None:
    make(tmp_path)
    assert clean(tmp_path)
    assert content_of(tmp_path) == OLD
    assert not clean(tmp_path)


def test_while_somebody_runs_on_it_nothing_is_touched(tmp_path: Path) -> None:
    make(tmp_path)
    lock = take_lock(tmp_path)
    try:
        assert after_interruption(tmp_path) is None
        assert content_of(tmp_path).items() >= OLD.items()
        assert prepared_place(tmp_path).exists()
    finally:
        os.close(lock)


@pytest.mark.parametrize("damaged", [b"", b'{"format":1,"aside', b"\xff" * 30, b"[" * 100_000])
def test_a_journal_that_cannot_be_read_is_named_with_what_helps_and_nothing_is_changed(
    tmp_path: Path, damaged: bytes
) -> None:
    make(tmp_path)
    (tmp_path / RESTORE_JOURNAL_FILE).write_bytes(damaged)
    with pytest.raises(JournalDamaged, match=r"restore\.journal is damaged.*restore FILE --over-newer-store"):
        after_interruption(tmp_path)
    assert (tmp_path / RESTORE_JOURNAL_FILE).read_bytes() == damaged
    (tmp_path / RESTORE_JOURNAL_FILE).unlink()
    assert {name: found for name, found in content_of(tmp_path).items() if "restoring" not in name} == OLD
