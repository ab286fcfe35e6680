"""How many bytes what waits may take, made from the memory that this process may use. No setting is read here, and nothing is kept.

`memory_limit_bytes` asks the kernel; everything else is arithmetic. All shares together stay below four fifths of the limit, with
what the processes need when nobody writes (about 200 MB) and with a rewrite of the append-only file, for which Redis forks.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

MIB = 1 << 20
SMALLEST_REDIS_BYTES = 24 * MIB  # sessions of a few thousand people, and some messages of the largest size that wait
LARGEST_REDIS_BYTES = 1024 * MIB  # loading it takes seconds; who wants more says so
UNLIMITED_REDIS_BYTES = 256 * MIB  # of ours in a Redis that is given and has no limit of its own
WITHOUT_REDIS_BYTES = 32 * MIB  # of a quarter of the limit: 96 MiB of 512, 32 MiB of 256
SMALLEST_INTAKE_BYTES = 24 * MIB  # a page of the largest messages, and what is made of it
LARGEST_INTAKE_BYTES = 256 * MIB

READING_COST = 2.5  # a frame, and what parsing makes of it, in bytes of the frame; measured on 1 MB
OPENING_COST = 6  # the same while it is decrypted, sealed for a worker and sent to Redis

EVIDENCE_BYTES = 3072  # what is kept of a message that nobody can read, in Redis
NOTE_BYTES = 300  # of one that waits at the relay
LEDGER_ENTRY_BYTES = 100

_FILES_V2: tuple[str, ...] = ("memory.max", "memory.high")
_FILES_V1 = ("memory.limit_in_bytes",)


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """What the memory limit of all our processes together leaves to each part.

    `redis_bytes`: maxmemory of the private Redis. `intake_bytes`: what the supervisor may hold of what comes from the relay
    (frames, lanes, pages) before it stands in Redis.
    """

    limit_bytes: int
    redis_bytes: int
    intake_bytes: int

    @classmethod
    def of(cls, limit_bytes: int, redis_bytes: int | None = None) -> "Budgets":
        """Of a memory limit; `redis_bytes` where the owner has said it."""
        return cls(
            limit_bytes=limit_bytes,
            redis_bytes=redis_bytes
            or _within(SMALLEST_REDIS_BYTES, limit_bytes // 4 - WITHOUT_REDIS_BYTES, LARGEST_REDIS_BYTES),
            intake_bytes=_within(SMALLEST_INTAKE_BYTES, limit_bytes // 8, LARGEST_INTAKE_BYTES),
        )

    @classmethod
    def here(cls, limit_bytes: int | None = None, redis_bytes: int | None = None) -> "Budgets":
        """Of what this process may use, as far as the owner has not said it."""
        return cls.of(limit_bytes or memory_limit_bytes(), redis_bytes)


class IntakeBudgets(msgspec.Struct, frozen=True, kw_only=True):
    """What each stage may hold of what comes from the relay, on its way into Redis. Together, at their worst, `intake_bytes`.

    `lanes_bytes`: frames that wait or are being read, with what is made of them before they are opened (READING_COST). `opening_bytes`: frames that are being opened and stored at once; that takes OPENING_COST as much. `page_bytes`: a polled page.
    """

    lanes_bytes: int
    opening_bytes: int
    page_bytes: int

    @classmethod
    def of(cls, intake_bytes: int) -> "IntakeBudgets":
        """Of `Budgets.intake_bytes`."""
        return cls(
            lanes_bytes=intake_bytes * 3 // 8,
            opening_bytes=intake_bytes // 16,
            page_bytes=intake_bytes * 3 // 32,
        )


class StoreBudgets(msgspec.Struct, frozen=True, kw_only=True):
    """What each kind may take of a Redis that holds so many bytes. Together seven eighths: from 90 % on nothing is taken in.

    `waiting_bytes`: messages that wait for a handler. `quarantine_bytes`: frames and plaintexts in quarantine, of which
    `unsigned_bytes` may be of messages that nobody has proven to have signed. `out_bytes`: replies behind another of their
    conversation. The numbers bound what is small: `most_quarantined` and `most_dead` entries, notes of messages that wait at the
    relay (`most_held`), entries of the ledger.
    """

    waiting_bytes: int
    quarantine_bytes: int
    unsigned_bytes: int
    dead_bytes: int
    out_bytes: int
    most_quarantined: int
    most_dead: int
    most_held: int
    ledger_entries: int

    @classmethod
    def of(cls, redis_bytes: int) -> "StoreBudgets":
        """Of what Redis may hold (maxmemory)."""
        return cls(
            waiting_bytes=redis_bytes // 3,
            quarantine_bytes=redis_bytes // 12,
            unsigned_bytes=redis_bytes // 48,
            dead_bytes=redis_bytes // 8,
            out_bytes=redis_bytes // 8,
            most_quarantined=_within(500, redis_bytes // 12 // EVIDENCE_BYTES, 10_000),
            most_dead=_within(1000, redis_bytes // 8 // EVIDENCE_BYTES, 10_000),
            most_held=_within(1000, redis_bytes // 32 // NOTE_BYTES, 10_000),
            ledger_entries=_within(5000, redis_bytes // 12 // LEDGER_ENTRY_BYTES, 200_000),
        )


def memory_limit_bytes(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup"), process: str = "self"
) -> int:
    """The lowest limit of the control groups that this process is in (v2 and v1, every level), else the machine's memory."""
    return min(_limits(proc, cgroups, process), default=_machine_bytes(proc))


def _within(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))


def _limits(proc: Path, cgroups: Path, process: str) -> Iterator[int]:
    """Never more than the machine has: v1 says 2⁶³ where there is no limit."""
    machine = _machine_bytes(proc)
    for line in _text(proc / process / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            mounts, names = (cgroups, cgroups / "unified"), _FILES_V2
        elif "memory" in controllers.split(","):
            mounts, names = (cgroups / "memory", cgroups / controllers), _FILES_V1
        else:
            continue
        for mount in mounts:
            for level in _levels(mount, group):
                for name in names:
                    text = _text(level / name).strip()
                    if text.isdecimal() and 0 < int(text) < machine:
                        yield int(text)


def _levels(mount: Path, group: str) -> Iterator[Path]:
    """The group's directory and those above it. In a container the path may be the host's; its own limits stand at the mount then."""
    level = mount / group.lstrip("/")
    while level != mount and mount in level.parents:
        yield level
        level = level.parent
    yield mount


def _machine_bytes(proc: Path) -> int:
    for line in _text(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return LARGEST_REDIS_BYTES  # no /proc: as on a machine of 1 GiB


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
