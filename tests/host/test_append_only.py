"""Append-only files that a server would not load whole are left alone, and named; what a server or a crash leaves by itself is no damage."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from host.append_only import StoreDamaged, damaged_by_its_log, refuse_damaged
from host.redis_folder import APPEND_ONLY_FOLDER, DATA_FOLDER, MANIFEST_FILE
from tests.other_user import USER, as_root, reachable

__all__ = ["reachable"]

ROOT = Path(__file__).parents[2]
BASE, PART = "appendonly.aof.1.base.aof", "appendonly.aof.1.incr.aof"
MANIFEST = f"file {BASE} seq 1 type b\nfile {PART} seq 1 type i\n"
LATER = f"file {BASE} seq 1 type b\nfile {PART} seq 1 type i startoffset 0\n"
REWRITTEN = (
    "file appendonly.aof.2.base.aof seq 2 type b\n"
    f"file {BASE} seq 1 type h\nfile {PART} seq 1 type h\n"
    "file appendonly.aof.2.incr.aof seq 2 type i\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a server leaves it that has run once."""
    made = tmp_path / DATA_FOLDER / APPEND_ONLY_FOLDER
    made.mkdir(parents=True)
    write(made, MANIFEST, **{BASE: "", PART: "*1\r\n"})
    return made


def write(folder: Path, manifest: str, **files: str) -> None:
    for name, content in {MANIFEST_FILE: manifest, **files}.items():
        (folder / name).write_text(content, encoding="utf-8")


def only_begun(folder: Path) -> None:
    """A server that was killed before its first manifest."""
    (folder / MANIFEST_FILE).unlink()
    (folder / PART).write_text("", encoding="utf-8")


SOUND: dict[str, Callable[[Path], object]] = {
    "as it was left": lambda _: None,
    "by a later server": lambda folder: write(folder, LATER),
    "a comment": lambda folder: write(folder, "# by hand\n" + MANIFEST),
    "killed before its first manifest": only_begun,
    "a rewrite has begun a part": lambda folder: write(folder, MANIFEST, **{"appendonly.aof.2.incr.aof": ""}),
    "a rewrite had ended but for its manifest": lambda folder: write(
        folder, MANIFEST, **{"appendonly.aof.2.base.aof": "x"}
    ),
    "a rewrite has ended, what it replaced is there or not": lambda folder: write(
        folder, REWRITTEN, **{"appendonly.aof.2.base.aof": "x", "appendonly.aof.2.incr.aof": "x"}
    ),
    "what a rewrite replaced could not be removed": lambda folder: write(
        folder,
        "file appendonly.aof.2.base.aof seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n",
        **{"appendonly.aof.2.base.aof": "x", "appendonly.aof.2.incr.aof": "x"},
    ),
}


@pytest.mark.pure
@pytest.mark.parametrize("made", SOUND.values(), ids=SOUND)
def test_what_a_server_leaves_by_itself_is_started_on(folder: Path, made: Callable[[Path], object]) -> None:
    made(folder)
    refuse_damaged(folder)


def test_a_new_state_directory_has_no_damage(tmp_path: Path) -> None:
    refuse_damaged(tmp_path / DATA_FOLDER / APPEND_ONLY_FOLDER)


def other(folder: Path, name: str, make: Callable[[Path], object]) -> None:
    (folder / name).unlink()
    make(folder / name)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: (folder / MANIFEST_FILE).unlink(), f"{MANIFEST_FILE} is missing, and {PART}"),
    "a cut one": (lambda folder: write(folder, MANIFEST[: len(MANIFEST) // 2]), f"does not name {PART}"),
    "one without its last byte": (lambda folder: write(folder, MANIFEST[:-1]), f"{MANIFEST_FILE} is damaged"),
    "an empty one": (lambda folder: write(folder, ""), f"{MANIFEST_FILE} is damaged"),
    "one with a bit flipped": (lambda folder: write(folder, MANIFEST.replace("type i", "type y")), "is damaged"),
    "one with another name": (
        lambda folder: write(folder, MANIFEST.replace(PART, "appendonly.aof.1.incr.aog")),
        "is missing",
    ),
    "one twice": (lambda folder: write(folder, MANIFEST * 2), "is damaged"),
    "one of another agent, say, or random": (
        lambda folder: (folder / MANIFEST_FILE).write_bytes(bytes(range(256))),
        "is damaged",
    ),
    "an older one": (lambda folder: write(folder, MANIFEST, **{"appendonly.aof.2.incr.aof": "x"}), "cut or older"),
    "a folder for a manifest": (lambda folder: other(folder, MANIFEST_FILE, Path.mkdir), "is no file"),
    "a link that leads to itself": (
        lambda folder: other(folder, MANIFEST_FILE, lambda path: path.symlink_to(path.name)),
        "Too many levels",
    ),
    "no part": (lambda folder: (folder / PART).unlink(), f"{PART} is missing"),
    "a folder for a part": (lambda folder: other(folder, PART, Path.mkdir), f"{PART} is no file"),
    "no base": (lambda folder: (folder / BASE).unlink(), f"{BASE} is missing"),
}


@pytest.mark.pure
@pytest.mark.parametrize(("damage", "said"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named_with_what_helps_and_nothing_is_changed(
    folder: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(folder)
    before = sorted((path.name, path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.iterdir())
    with pytest.raises(StoreDamaged) as caught:
        refuse_damaged(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "hashee-agent restore FILE --over-newer-store" in str(caught.value)
    assert sorted((path.name, path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.iterdir()) == before


def test_a_file_for_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / APPEND_ONLY_FOLDER).touch()
    with pytest.raises(StoreDamaged, match=f"{APPEND_ONLY_FOLDER}: Not a directory"):
        refuse_damaged(tmp_path / APPEND_ONLY_FOLDER)


@pytest.mark.parametrize(
    "line",
    [
        f"7:M 30 Nov 2026 17:15:26.214 # Bad file format reading the append only file {PART}: make a backup of your AOF file, then use …",
        f"7:M 30 Nov 2026 17:15:26.214 # Unexpected end of file reading the append only file {PART}. You can: 1) Make a backup of your AOF",
        f"7:M 30 Nov 2026 17:15:26.214 # Unknown command 'SEX' reading the append only file {PART}",
    ],
)
def test_what_a_server_says_of_a_file_names_it_and_repeats_nothing_of_it(line: str, tmp_path: Path) -> None:
    damaged = damaged_by_its_log(["7:M # Server initialized", line], tmp_path / APPEND_ONLY_FOLDER)
    assert f"{APPEND_ONLY_FOLDER}/{PART} is damaged" in str(damaged)
    assert "SEX" not in str(damaged)


def test_other_last_words_are_no_damage(tmp_path: Path) -> None:
    assert damaged_by_its_log(["7:M # Failed opening Unix socket: bind: No such file or directory"], tmp_path) is None


@as_root
@pytest.mark.parametrize("name", [MANIFEST_FILE, PART, BASE])
def test_what_this_user_may_not_read_is_no_damage_and_said_as_that(reachable: Path, name: str) -> None:
    folder = reachable / APPEND_ONLY_FOLDER
    folder.mkdir()
    write(folder, MANIFEST, **{BASE: "", PART: "x"})
    for path in (folder, *folder.iterdir()):
        os.chown(path, USER, USER)
    (folder / name).chmod(0)
    asked = f"""
import os
from pathlib import Path
from host.append_only import refuse_damaged
os.setgroups([]); os.setgid({USER}); os.setuid({USER})
try:
    refuse_damaged(Path({str(folder)!r}))
except PermissionError as refused:
    print(refused.filename)
"""
    said = subprocess.run(
        [sys.executable, "-c", asked],
        env={"PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert said.stdout.strip() == str(folder / name)
