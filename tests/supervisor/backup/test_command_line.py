"""`hashee-agent backup …` as people and timers call it: files, folders, pipes, and what is said when something is missing."""

import errno
import os
import stat
import subprocess
import time
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from host.private_files import write_new
from supervisor.backup.files import SUFFIX, keep_newest, named_in, whole_file
from tests.supervisor.cli.keys.running import PROGRAM, environ_of, make_store, run
from tests.supervisor.settings.environment import AGENT_ID, ED25519_PRIVATE, X25519_PRIVATE

PASSPHRASE = "tree of many words"


def environ_with(directory: Path, **more: str) -> dict[str, str]:
    """A store with something in it, and a passphrase in a file."""
    (directory / "passphrase").write_text(PASSPHRASE + "\n", encoding="utf-8")
    environ = environ_of(directory, HASHEE_BACKUP_PASSPHRASE_FILE=str(directory / "passphrase"), **more)
    make_store(environ)
    return environ


def test_a_backup_under_a_passphrase_is_made_once_and_verified_without_a_store(tmp_path: Path) -> None:
    environ = environ_with(tmp_path)
    made = run("backup", "agent.backup", environ=environ, cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "")
    assert "agent.backup holds agent" in made.stderr
    file = tmp_path / "agent.backup"
    assert file.stat().st_mode & 0o777 == 0o600
    again = run("backup", "agent.backup", environ=environ, cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    elsewhere = {"PATH": os.environ["PATH"], "PYTHONPATH": environ["PYTHONPATH"]}
    named = {**elsewhere, "HASHEE_BACKUP_PASSPHRASE_FILE": environ["HASHEE_BACKUP_PASSPHRASE_FILE"]}
    fingerprint = made.stderr.split("signed by ")[1].split(";")[0]
    seen = run("backup", "verify", "agent.backup", "--fingerprint", fingerprint, environ=named, cwd=tmp_path)
    assert [line.split(maxsplit=1)[1] for line in seen.stdout.splitlines() if line.startswith("   ")][2:] == [
        line.split(maxsplit=1)[1] for line in made.stderr.splitlines() if line.startswith("   ")
    ]
    assert seen.stderr.splitlines() == [  # the MACs of that store's grants are none
        "hashee-agent: the log of grants does not hold",
    ]
    other = run("backup", "verify", "agent.backup", "--fingerprint", "00" * 16, environ=named, cwd=tmp_path)
    assert (other.returncode, fingerprint in other.stderr) == (1, True)
    asked = run("backup", "verify", "agent.backup", environ=elsewhere, cwd=tmp_path)
    assert (asked.returncode, "HASHEE_BACKUP_PASSPHRASE_FILE" in asked.stderr) == (1, True)
    file.write_bytes(file.read_bytes()[:-1])
    cut = run("backup", "verify", "agent.backup", environ=named, cwd=tmp_path)
    assert (cut.returncode, "cut short" in cut.stderr) == (1, True)
    shown = made.stderr + seen.stdout + seen.stderr + cut.stderr + asked.stderr
    assert not [secret for secret in (PASSPHRASE, X25519_PRIVATE, ED25519_PRIVATE) if secret in shown]


def test_a_backup_for_an_age_key_goes_through_a_pipe_and_is_opened_by_its_other_half(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    environ = environ_with(tmp_path, HASHEE_BACKUP_RECIPIENTS=str(identity.to_public()))
    made = subprocess.run(
        [*PROGRAM, "backup", "-"], env=environ, cwd=tmp_path, capture_output=True, timeout=30, check=True
    )
    assert made.stdout.startswith(b"age-encryption.org/v1\n")
    (tmp_path / "piped").write_bytes(made.stdout)
    asked = run("backup", "verify", "piped", environ=environ, cwd=tmp_path)
    assert (asked.returncode, "HASHEE_BACKUP_IDENTITY_FILE" in asked.stderr) == (1, True)
    key = tmp_path / "age.key"
    key.write_text(f"# of the test\n{identity}\n", encoding="utf-8")
    opened = run(
        "backup", "verify", "piped", environ={**environ, "HASHEE_BACKUP_IDENTITY_FILE": str(key)}, cwd=tmp_path
    )
    assert "it would bring back" in opened.stdout
    key.write_text("AGE-SECRET-KEY-1NONSENSE\n", encoding="utf-8")
    wrong = run("backup", "verify", "piped", environ={**environ, "HASHEE_BACKUP_IDENTITY_FILE": str(key)}, cwd=tmp_path)
    assert (wrong.returncode, "HASHEE_BACKUP_IDENTITY_FILE" in wrong.stderr, "NONSENSE" in wrong.stderr) == (
        78,
        True,
        False,
    )


def test_before_the_first_start_there_is_nothing_to_save(tmp_path: Path) -> None:
    environ = environ_of(tmp_path, HASHEE_BACKUP_PASSPHRASE_FILE=str(tmp_path / "passphrase"))
    (tmp_path / "passphrase").write_text(PASSPHRASE, encoding="utf-8")
    made = run("backup", "agent.backup", environ=environ, cwd=tmp_path)
    assert (made.returncode, "the first start" in made.stderr) == (1, True)
    assert not list(tmp_path.glob("*agent.backup*"))


@pytest.mark.pure
@pytest.mark.parametrize(("fails_at", "is_there"), [(1, False), (2, True)])
def test_a_disk_that_fails_at_the_last_is_an_error_that_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, is_there: bool
) -> None:
    """The file's own fsync, then that of its folder: of that one it is not known whether the name is on the disk."""
    left = iter(range(1, 3))

    def fail(_descriptor: int) -> None:
        if next(left) == fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output") as failed, whole_file(tmp_path / "one"):
        pass
    assert failed.value.filename == str(tmp_path if is_there else tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"] * is_there


@pytest.mark.pure
def test_a_share_that_forces_no_folder_to_its_disk_takes_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fail)
    with whole_file(tmp_path / "one") as file:
        file.write(b"whole")
    assert (tmp_path / "one").read_bytes() == b"whole"


@pytest.mark.pure
def test_a_file_gets_its_name_when_it_is_whole_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No space left") as full, whole_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(path)
    with whole_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    for hour in range(5):
        (tmp_path / f"{AGENT_ID}-2026010{hour}T000000Z{SUFFIX}").touch()
    (tmp_path / f"other-20260101T000000Z{SUFFIX}").touch()
    partial = tmp_path / f".{AGENT_ID}-20260101T000000Z{SUFFIX}.1.partial"
    partial.touch()
    os.utime(partial, (0, 0))
    assert len(keep_newest(tmp_path, AGENT_ID, 2, f"{AGENT_ID}-20260104T000000Z{SUFFIX}")) == 3
    left = sorted(one.name for one in tmp_path.iterdir())
    assert left == sorted(
        [
            f"{AGENT_ID}-20260103T000000Z{SUFFIX}",
            f"{AGENT_ID}-20260104T000000Z{SUFFIX}",
            f"other-20260101T000000Z{SUFFIX}",
            "one",
        ]
    )


@pytest.mark.pure
def test_backups_of_one_second_have_names_of_their_own_in_their_order(tmp_path: Path) -> None:
    """Else the second of two within one second was refused: its file is there already."""
    names = list[str]()
    for _ in range(20):
        names.append(named_in(tmp_path, AGENT_ID).name)
        time.sleep(0.001)
    assert names == sorted(set(names))


@pytest.mark.pure
def test_what_was_made_while_the_clock_was_ahead_does_not_outlive_what_is_made_now(tmp_path: Path) -> None:
    def named(at: str) -> Path:
        return tmp_path / f"{AGENT_ID}-{at}T000000Z{SUFFIX}"

    for at in ("20260101", "20380118", "20380119"):
        named(at).touch()
    for at, gone in (("20260102", "20380118"), ("20260103", "20380119"), ("20260104", "20260101")):
        named(at).touch()
        assert keep_newest(tmp_path, AGENT_ID, 3, named(at).name) == [named(gone)]
    named("19700101").touch()  # a host without a clock has started, and knows no time yet
    assert keep_newest(tmp_path, AGENT_ID, 3, named("19700101").name) == [named("20260102")]


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        assert not path.exists()
        raise ZeroDivisionError


@pytest.mark.pure
@pytest.mark.parametrize("reason", [errno.EPERM, errno.ENOTSUP])
def test_where_there_are_no_hard_links_a_file_gets_its_name_and_takes_that_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "agent.backup"
    with whole_file(path) as file:
        file.write(b"whole")
    write_new(tmp_path / "key", b"secret")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"agent.backup": b"whole", "key": b"secret"}
    other = tmp_path / "other.backup"
    with pytest.raises(FileExistsError), whole_file(other):
        other.write_bytes(b"somebody was quicker")
    assert other.read_bytes() == b"somebody was quicker"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["agent.backup", "key", "other.backup"]
