"""Keeps the number of commits in memory, where no copy of the state directory can put it back (DESIGN rule 17).

It is on a tmpfs, in a folder that only this user can enter, under a name made from the store secret. Each supervisor of a store has a file of
its own: the boot id of the host, the servers that it has checked, and the highest number of commits that it has heard of, written before the
ciphertext of that commit leaves. A process that is killed leaves the file as it is. What follows from it is decided in
supervisor/recovery/time_guard.py.
"""

import contextlib
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from hmac import digest
from pathlib import Path

import msgspec

from bus.records.sealing import StoreKeys
from host.proc import boot_id, file_system_of

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})

MOST_SUPERVISORS = 16
"""A private Redis has two supervisors while one replaces the other; a file is free again when its process has ended."""

MOST_SERVERS = 4
"""The private Redis is another server after each start. More than the last name is needed, since an interrupted check may have written
another one into Redis. An older name does no harm: commits are counted."""

COUNT = struct.Struct("<Q")
REST = struct.Struct(f"<8s36s{MOST_SERVERS * 96}s")
"""Format, boot id, names of servers."""

FORMAT = b"hashee-1"
FILE_BYTES = COUNT.size + REST.size
FORGOTTEN_SECONDS = 30 * 86_400
"""A file that was not written for so long belongs to a store that is gone. If not, its sessions are started anew at the next start."""


class NoWitness(Exception):
    """There is no place in memory for a witness; the text says why."""


class Testimony(msgspec.Struct, frozen=True):
    """The contents of one file or of all together; empty if nothing was written since the host was started."""

    commits: int = 0
    servers: tuple[str, ...] = ()


class Witness:
    """One supervisor's file among those of its store, in any folder (see `open_witness`). Raises OSError if it cannot be written."""

    def __init__(self, folder: Path, name: str) -> None:
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._name = name
        self._descriptor = -1
        try:
            _refuse_what_others_can_enter(self._directory)
            self._descriptor = self._take_file()
            os.posix_fallocate(
                self._descriptor, 0, FILE_BYTES
            )  # so that a count can be written also when the memory is full later
            self._own = _read(self._descriptor)
            self._write(self._own)
        except OSError:
            self.close()
            raise

    def testimony(self) -> Testimony:
        """Returns what all supervisors of this store have seen, also those that have ended."""
        found = [self._own, *self._others()]
        return Testimony(max(one.commits for one in found), tuple({name for one in found for name in one.servers}))

    def looks_at(self, server: str) -> None:
        """Notes the server that is about to be checked, since Redis may hold its name before the answer arrives."""
        if server not in self._own.servers:
            servers = (*self._own.servers, server)[-MOST_SERVERS:]
            self._write(Testimony(self._own.commits, servers))

    def note(self, commits: int) -> None:
        """Notes the number of commits. It is in the kernel when this returns, after a microsecond."""
        if commits > self._own.commits:
            os.pwrite(self._descriptor, COUNT.pack(commits), 0)
            self._own = Testimony(commits, self._own.servers)

    @property
    def noted_ms(self) -> int:
        """Returns when this supervisor's file was last written (a commit, or its start), Unix time, ms."""
        return os.fstat(self._descriptor).st_mtime_ns // 1_000_000

    def close(self) -> None:
        """Frees its file for another process; the contents stay."""
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._directory = -1

    def _others(self) -> Iterator[Testimony]:
        for number in range(MOST_SUPERVISORS):
            with contextlib.suppress(FileNotFoundError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(f"{self._name}.{number}", flags, dir_fd=self._directory)
                try:
                    yield _read(descriptor)
                finally:
                    os.close(descriptor)

    def _take_file(self) -> int:
        """Locks the first file that no other process holds; the lock ends with the process."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        for number in range(MOST_SUPERVISORS):
            descriptor = os.open(f"{self._name}.{number}", flags, 0o600, dir_fd=self._directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return descriptor
        raise OSError(None, f"{MOST_SUPERVISORS} processes hold it")

    def _write(self, now: Testimony) -> None:
        names = "\n".join(now.servers).encode()
        os.pwrite(self._descriptor, COUNT.pack(now.commits) + REST.pack(FORMAT, _boot(), names), 0)
        self._own = now


def open_witness(name: str, places: Iterable[Path]) -> Witness:
    """Opens the witness `name` in the first of these places that is in memory and where a folder can be ours alone. Raises NoWitness."""
    problems = list[str]()
    for place in places:
        if not _is_in_memory(place):
            problems.append(f"{place} is not in memory")
            continue
        folder = place / f"hashee-agent-witness-{os.geteuid()}"
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            witness = Witness(folder, name)
            _forget_old(folder)
        except OSError as problem:
            problems.append(f"{place}: {problem.strerror}")
        else:
            return witness
    raise NoWitness("; ".join(problems) or "no place was named")


def witness_name(keys: StoreKeys, agent_id: str) -> str:
    """Returns the name of this agent's witness, which stays after a rotation of the store secret and cannot be guessed."""
    return digest(keys.ledger, f"hashee-witness-v1\0{agent_id}".encode(), sha256).hex()


def _refuse_what_others_can_enter(directory: int) -> None:
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError(None, "its folder belongs to another, or others can enter it")


def _forget_old(folder: Path) -> None:
    oldest = time.time() - FORGOTTEN_SECONDS
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            if file.lstat().st_mtime < oldest:
                file.unlink()


def _read(descriptor: int) -> Testimony:
    """Reads a file; the result is empty if the file is new, of another format or of another boot."""
    found = os.pread(descriptor, FILE_BYTES, 0)
    if len(found) < FILE_BYTES:
        return Testimony()
    (commits,) = COUNT.unpack_from(found)
    form, boot, names = REST.unpack_from(found, COUNT.size)
    if (form, boot) != (FORMAT, _boot()):
        return Testimony()
    return Testimony(commits, tuple(names.rstrip(b"\0").decode("ascii", "replace").split()))


def _is_in_memory(place: Path) -> bool:
    """Returns whether its file system is in memory, so that no copy, disk or other boot brings it back."""
    try:
        return file_system_of(place.stat().st_dev) in MEMORY_FILE_SYSTEMS
    except OSError:
        return False


def _boot() -> bytes:
    return boot_id().encode()[:36].ljust(36)
