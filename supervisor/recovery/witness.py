"""What no copy of the state directory brings back: how many commits there were, in memory (DESIGN rule 17).

It stands on a tmpfs, in a folder that only this user can enter, under a name that is made from the store secret. Each supervisor of a store
has a file of its own there: on which boot of the host it was written, which servers it has looked at, and the highest number of commits that it
has heard of, written before the ciphertext of that commit leaves. A process that is killed leaves it as it was.
Nothing here decides what follows from it (supervisor/recovery/time_guard.py).
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
"""Of one private Redis there are two while they replace each other; a file is free again when its process has ended."""

MOST_SERVERS = 4
"""The private Redis is another server after each of its starts. One more than the last is needed: a look that was cut off may have named another
there. An older name does no harm: commits are counted."""

COUNT = struct.Struct("<Q")
REST = struct.Struct(f"<8s36s{MOST_SERVERS * 96}s")
"""Format, boot id, names of servers."""

FORMAT = b"hashee-1"
FILE_BYTES = COUNT.size + REST.size
FORGOTTEN_SECONDS = 30 * 86_400
"""What nobody has written to for so long is of a store that is gone; if it was not, its sessions are started anew at the next start."""


class NoWitness(Exception):
    """There is no place in memory for it; the text says why."""


class Testimony(msgspec.Struct, frozen=True):
    """What one file says, or all of them together. Nothing where nothing was written since the host was started."""

    commits: int = 0
    servers: tuple[str, ...] = ()


class Witness:
    """One supervisor's file among those of its store. Made by `open_witness`, or in any folder; raises OSError where it cannot be written."""

    def __init__(self, folder: Path, name: str) -> None:
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._name = name
        self._descriptor = -1
        try:
            _refuse_what_others_can_enter(self._directory)
            self._descriptor = self._take_file()
            os.posix_fallocate(
                self._descriptor, 0, FILE_BYTES
            )  # whatever fills the memory later, there is room for a count
            self._own = _read(self._descriptor)
            self._write(self._own)
        except OSError:
            self.close()
            raise

    def testimony(self) -> Testimony:
        """What all supervisors of this store have seen, those that have ended too."""
        found = [self._own, *self._others()]
        return Testimony(max(one.commits for one in found), tuple({name for one in found for name in one.servers}))

    def looks_at(self, server: str) -> None:
        """This supervisor is about to look at the server of this name: Redis may hold the name before we know that it does."""
        if server not in self._own.servers:
            servers = (*self._own.servers, server)[-MOST_SERVERS:]
            self._write(Testimony(self._own.commits, servers))

    def note(self, commits: int) -> None:
        """There are so many commits. In the kernel when this returns, which takes a microsecond."""
        if commits > self._own.commits:
            os.pwrite(self._descriptor, COUNT.pack(commits), 0)
            self._own = Testimony(commits, self._own.servers)

    @property
    def noted_ms(self) -> int:
        """When something was last written into this supervisor's file, Unix time: a commit, or its start."""
        return os.fstat(self._descriptor).st_mtime_ns // 1_000_000

    def close(self) -> None:
        """Its file is free for another; what it has seen stays."""
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
        """The first that no other process holds. The lock ends with the process."""
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
    """The witness called `name`, in the first of these places that is in memory and where a folder can be ours alone. Raises NoWitness."""
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
    """Of this agent on this store, also after its store secret was rotated; nobody else can guess it."""
    return digest(keys.ledger, f"hashee-witness-v1\0{agent_id}".encode(), sha256).hex()


def _refuse_what_others_can_enter(directory: int) -> None:
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError(None, "its folder belongs to another, or others can enter it")


def _forget_old(folder: Path) -> None:
    oldest = time.time() - FORGOTTEN_SECONDS
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another does the same
            if file.lstat().st_mtime < oldest:
                file.unlink()


def _read(descriptor: int) -> Testimony:
    """What stands in a file; nothing where it is new, of another format or of another boot."""
    found = os.pread(descriptor, FILE_BYTES, 0)
    if len(found) < FILE_BYTES:
        return Testimony()
    (commits,) = COUNT.unpack_from(found)
    form, boot, names = REST.unpack_from(found, COUNT.size)
    if (form, boot) != (FORMAT, _boot()):
        return Testimony()
    return Testimony(commits, tuple(names.rstrip(b"\0").decode("ascii", "replace").split()))


def _is_in_memory(place: Path) -> bool:
    """Whether its file system is one that no copy, no disk and no other boot brings back."""
    try:
        return file_system_of(place.stat().st_dev) in MEMORY_FILE_SYSTEMS
    except OSError:
        return False


def _boot() -> bytes:
    return boot_id().encode()[:36].ljust(36)
