"""The state directory where platforms put it: lent, mounted, read-only, another's. Each works, or ends with 78, its name and the remedy.

As root these make directories of real owners and modes, and drop to another user in a child; else they are skipped.
"""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.settings.reader import SettingsError
from bus.settings.state_place import OWN_FOLDER, state_place
from supervisor.backup.switching import PREPARED
from supervisor.files.counts import COUNTS_FILE
from supervisor.files.key_file import FILES_KEY_FILE
from supervisor.keeper import keeper
from supervisor.keeper.files_gate import FILES_SOCKET
from supervisor.keeper.state_directory import OURS, make_private, refuse_unusable, take_lock
from supervisor.peers.grant_ledger import HEAD_FILE
from supervisor.recovery.time_guard import FILE as SEEN_FILE
from supervisor.settings.keeper import KeeperSettings
from supervisor.settings.secrets import NEXT_STORE_SECRET_FILE, RESTORE_JOURNAL_FILE, STORE_SECRET_FILE
from tests.other_user import USER, as_root, reachable
from tests.supervisor.settings.environment import process_environ

__all__ = ["reachable"]

ROOT = Path(__file__).parents[3]
CHOSEN = f"""
import os, sys
from pathlib import Path
from supervisor.keeper.state_directory import make_private, refuse_unusable, take_lock
from bus.settings.state_place import state_place
os.setgroups([{USER}]); os.setgid({USER}); os.setuid({USER}); os.umask(int(sys.argv[2], 8))
given = Path(sys.argv[1])
try:
    place = state_place(given)
    refuse_unusable(place)
    make_private(place)
    os.close(take_lock(place))
    assert state_place(given) == place, "another one, once it is in use"
except Exception as problem:
    sys.exit(f"{{type(problem).__name__}}: {{problem}}")
print(place)
"""


def as_user(given: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """What the state directory comes out as, chosen and taken by another user."""
    return subprocess.run(
        [sys.executable, "-c", CHOSEN, str(given), f"{umask:o}"],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def lent(path: Path, mode: int, group: int = USER, owner: int = 0) -> Path:
    path.mkdir()
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


def works(given: Path, umask: int = 0o022) -> Path:
    done = as_user(given, umask)
    assert done.returncode == 0, done.stderr
    place = Path(done.stdout.strip())
    found = place.stat()
    assert found.st_uid == USER
    assert stat.S_IMODE(found.st_mode) & 0o777 == 0o700
    return place


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
@pytest.mark.parametrize(
    ("mode", "group"),
    [(0o2777, USER), (0o2770, USER), (0o777, 0), (0o1777, 0)],
    ids=["fsgroup", "2770", "0777", "tmpfs"],
)
def test_in_a_lent_directory_the_state_has_a_folder_of_its_own(
    reachable: Path, mode: int, group: int, umask: int
) -> None:
    given = lent(reachable / "given", mode, group)
    assert works(given, umask) == given / OWN_FOLDER
    assert works(given, umask) == given / OWN_FOLDER, "the second start finds the same"
    assert stat.S_IMODE(given.stat().st_mode) == mode


@as_root
def test_what_becomes_ours_later_keeps_its_state_where_it_stands(reachable: Path) -> None:
    given = lent(reachable / "given", 0o2777)
    works(given)
    os.chown(given, USER, USER)
    assert works(given) == given / OWN_FOLDER
    assert state_place(given) == given / OWN_FOLDER, "root, who looks at it, finds it too"


@as_root
def test_a_directory_of_ours_is_the_state_directory_whatever_stands_in_it(reachable: Path) -> None:
    given = lent(reachable / "given", 0o755, owner=USER)
    lent(given / OWN_FOLDER, 0o755, owner=USER)
    assert works(given) == given
    (given / OWN_FOLDER / "lock").touch()
    assert works(given) == given, "in use as it is, it stays as it is"


@as_root
def test_one_that_is_not_there_is_made_private_under_any_umask(reachable: Path) -> None:
    parent = lent(reachable / "parent", 0o2777)
    for umask in (0o000, 0o022, 0o077):
        assert works(parent / f"{umask}" / "state", umask) == parent / f"{umask}" / "state"


@as_root
def test_a_link_to_a_directory_of_ours_is_followed(reachable: Path) -> None:
    (reachable / "link").symlink_to(lent(reachable / "given", 0o755, owner=USER))
    assert works(reachable / "link") == reachable / "link"


def refused(given: Path) -> str:
    done = as_user(given)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("SettingsError: HASHEE_STATE_DIR "), done.stderr
    return done.stderr


@as_root
def test_a_mounted_directory_of_roots_is_refused_with_the_chown_that_helps(reachable: Path) -> None:
    given = lent(reachable / "given", 0o755, group=0)
    said = refused(given)
    assert f"{given} belongs to uid 0, mode 0755, and this process is uid {USER}" in said
    assert f"chown it to {USER}, a mounted one on its host" in said


@as_root
@pytest.mark.parametrize("name", ["lock", "redis"])
def test_what_a_start_by_root_left_in_it_is_refused_with_the_chown_that_helps(reachable: Path, name: str) -> None:
    given = lent(reachable / "given", 0o700, owner=USER)
    (given / name).touch(mode=0o600)
    said = refused(given)
    assert f"{given / name} belongs to uid 0, and this process is uid {USER}" in said
    assert f"chown -R {USER} {given}" in said


@as_root
def test_one_that_cannot_be_made_is_refused_with_what_helps(reachable: Path) -> None:
    parent = lent(reachable / "parent", 0o755, group=0)
    assert f"make {parent / 'a' / 'b'} and chown it to {USER}" in refused(parent / "a" / "b")


@as_root
def test_what_another_user_made_in_a_lent_directory_is_not_taken(reachable: Path) -> None:
    given = lent(reachable / "given", 0o777)
    lent(given / OWN_FOLDER, 0o777, owner=65534)
    assert "remove it, or name another" in refused(given)


@as_root
def test_another_users_link_in_a_lent_directory_is_not_followed(reachable: Path) -> None:
    given = lent(reachable / "given", 0o777)
    (given / OWN_FOLDER).symlink_to(lent(reachable / "ours", 0o755, owner=USER))
    os.lchown(given / OWN_FOLDER, 65534, 65534)
    assert "a link that another user (uid 65534) has made" in refused(given)
    assert stat.S_IMODE((reachable / "ours").stat().st_mode) == 0o755


@as_root
def test_a_file_in_its_place_is_refused(reachable: Path) -> None:
    (reachable / "given").touch()
    assert "is no directory" in refused(reachable / "given")


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    path.mkdir()
    done = subprocess.run(
        ["/usr/bin/env", "mount", *arguments, str(path)], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["/usr/bin/env", "umount", str(path)], check=True)


@as_root
def test_a_real_tmpfs_is_lent(reachable: Path) -> None:
    with mounted(reachable / "given", "-t", "tmpfs", "-o", "mode=1777", "tmpfs") as given:
        assert works(given) == given / OWN_FOLDER


@as_root
def test_a_read_only_file_system_is_refused(reachable: Path) -> None:
    with mounted(reachable / "given", "-t", "tmpfs", "-o", f"ro,mode=700,uid={USER}", "tmpfs") as given:
        assert f"{given} is on a file system that is read-only" in refused(given)


class Refused(OSError):
    """As NFS or a FUSE mount says it."""

    def __init__(self) -> None:
        super().__init__(errno.EPERM, "Operation not permitted")


def refuse(*_: object, **__: object) -> None:
    raise Refused


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_file_system_that_refuses_or_ignores_modes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(mode)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(SettingsError, match=rf"refuses mode 0700 \(Operation not permitted\), it stays {mode:04o}"):
        make_private(given)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(
        SettingsError, match=f"HASHEE_STATE_DIR .* does not keep mode 0700, it stays {mode:04o}: name one"
    ):
        make_private(given)


def test_where_modes_cannot_be_set_a_private_directory_is_good_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    monkeypatch.setattr(Path, "chmod", refuse)
    make_private(given)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SettingsError, match=r"gives no lock \(Operation not permitted\): name one on a local disk"):
        take_lock(tmp_path)


async def test_a_file_system_without_sockets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "listen_control", refuse)
    settings = KeeperSettings.from_environ(process_environ(tmp_path / "state"))
    with pytest.raises(SettingsError, match=r"no Unix socket can be made at .*control\.sock"):
        await keeper.run_keeper(settings, lambda _: [], {})


@as_root
def test_what_its_owner_may_not_use_is_said_with_the_chmod_that_helps(reachable: Path) -> None:
    given = lent(reachable / "given", 0o700, owner=USER)
    (given / "lock").touch(mode=0o000)
    os.chown(given / "lock", USER, USER)
    assert f"{given / 'lock'} has mode 0000, in which its owner cannot use it: chmod u+rwX" in refused(given)


OTHERS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("/nonexistent"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", [name for name, kind in OURS.items() if kind == "a file"])
def test_what_is_no_file_under_a_name_of_ours_is_refused_at_the_start_and_left_alone(
    tmp_path: Path, name: str, other: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    OTHERS[other](tmp_path / name)
    mode = (tmp_path / name).lstat().st_mode
    with pytest.raises(SettingsError, match=f"{name} is a .*move it away"):
        refuse_unusable(tmp_path)
    assert (tmp_path / name).lstat().st_mode == mode


@pytest.mark.parametrize("name", [name for name, kind in OURS.items() if kind == "a folder"])
def test_a_file_under_the_name_of_a_folder_of_ours_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=f"{name} is a file, where the agent keeps a folder: move it away"):
        refuse_unusable(tmp_path)


@pytest.mark.parametrize("name", [name for name, kind in OURS.items() if kind == "a socket"])
def test_what_is_left_of_a_socket_is_no_fault_but_a_folder_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to("/nonexistent")
    refuse_unusable(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(SettingsError, match=f"{name} is a folder, where the agent keeps a socket: move it away"):
        refuse_unusable(tmp_path)


def test_a_link_to_a_file_under_a_name_of_ours_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / STORE_SECRET_FILE).symlink_to("elsewhere")
    refuse_unusable(tmp_path)


def test_every_file_of_the_state_directory_is_in_the_table() -> None:
    spelled = {
        STORE_SECRET_FILE,
        NEXT_STORE_SECRET_FILE,
        RESTORE_JOURNAL_FILE,
        SEEN_FILE,
        HEAD_FILE,
        FILES_KEY_FILE,
        COUNTS_FILE,
        FILES_SOCKET,
        PREPARED,
    }
    assert spelled <= set(OURS)
