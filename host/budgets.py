"""Divides the memory that our processes may use among everything that can pile up. Reads no setting and keeps nothing.

`memory_limit_bytes` asks the kernel; everything else is arithmetic. All shares together stay below four fifths of the limit, counting
what idle processes need (about 200 MB) and a rewrite of the append-only file, for which Redis forks.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from host.proc import PROC, control_groups, machine_bytes

MIB = 1 << 20
SMALLEST_REDIS_BYTES = 24 * MIB  # sessions of a few thousand people, and some messages of the largest size that wait
LARGEST_REDIS_BYTES = 1024 * MIB  # loading it takes seconds; HASHEE_REDIS_MEMORY allows more
UNLIMITED_REDIS_BYTES = 256 * MIB  # what we use of an operator's Redis that has no maxmemory
WITHOUT_REDIS_BYTES = 32 * MIB  # taken off Redis' quarter of the limit: 96 MiB are left of 512, 32 MiB of 256
SMALLEST_INTAKE_BYTES = 24 * MIB  # a page of the largest messages, and what parsing makes of it
LARGEST_INTAKE_BYTES = 256 * MIB  # the eighth of 2 GiB; a larger machine needs no more

READING_COST = 2.5  # memory of a frame that is parsed, in its own length; measured on 1 MB
OPENING_COST = 6  # likewise while it is decrypted, sealed for a worker and sent to Redis

EVIDENCE_BYTES = 3072  # Redis' memory for what is kept of one unreadable message
NOTE_BYTES = 300  # Redis' memory for the note of one message that waits at the relay
MOST_OLD = 5000  # notes of what came again and cannot be read any more, some 150 bytes each
LEDGER_ENTRY_BYTES = 100  # Redis' memory for one entry of the ledger

_FILES_V2: tuple[str, ...] = ("memory.max", "memory.high")
_FILES_V1 = ("memory.limit_in_bytes",)


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """The shares of Redis and of the intake in the memory limit of all our processes together.

    `redis_bytes`: maxmemory of the private Redis. `intake_bytes`: what the supervisor may hold of what comes from the relay
    (frames, lanes, pages) before it stands in Redis.
    """

    limit_bytes: int
    redis_bytes: int
    intake_bytes: int

    @classmethod
    def of(cls, limit_bytes: int, redis_bytes: int | None = None) -> "Budgets":
        """Returns the shares of this memory limit; `redis_bytes` overrides Redis' share (HASHEE_REDIS_MEMORY)."""
        return cls(
            limit_bytes=limit_bytes,
            redis_bytes=redis_bytes
            or _within(SMALLEST_REDIS_BYTES, limit_bytes // 4 - WITHOUT_REDIS_BYTES, LARGEST_REDIS_BYTES),
            intake_bytes=_within(SMALLEST_INTAKE_BYTES, limit_bytes // 8, LARGEST_INTAKE_BYTES),
        )

    @classmethod
    def here(cls, limit_bytes: int | None = None, redis_bytes: int | None = None) -> "Budgets":
        """Returns the shares of `limit_bytes` (HASHEE_MEMORY), or else of what the kernel lets this process use."""
        return cls.of(limit_bytes or memory_limit_bytes(), redis_bytes)


class IntakeBudgets(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of frames each stage between relay and Redis may hold. With the costs above they add up to `intake_bytes`.

    `lanes_bytes`: frames that wait or are being read, counted with READING_COST. `opening_bytes`: frames that are opened and stored
    at the same time; they take OPENING_COST as much. `page_bytes`: one polled page.
    """

    lanes_bytes: int
    opening_bytes: int
    page_bytes: int

    @classmethod
    def of(cls, intake_bytes: int) -> "IntakeBudgets":
        """Divides `Budgets.intake_bytes`."""
        return cls(
            lanes_bytes=intake_bytes * 3 // 8,
            opening_bytes=intake_bytes // 16,
            page_bytes=intake_bytes * 3 // 32,
        )


class StoreBudgets(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of Redis each kind of record may take. Together seven eighths of it: from 90 % on no message is taken in.

    `waiting_bytes`: messages that wait for a handler. `quarantine_bytes`: frames and plaintexts in quarantine, of which
    `unsigned_bytes` may be of messages that nobody has proven to have signed. `out_bytes`: replies behind another of their
    conversation. `history_bytes`: what was said in all conversations, where handlers ask for it. The numbers bound what is small: `most_quarantined` and `most_dead` entries, notes of messages that wait at the
    relay (`most_held`), notes of what came again and cannot be read any more (`most_old`), entries of the ledger.
    """

    waiting_bytes: int
    quarantine_bytes: int
    unsigned_bytes: int
    dead_bytes: int
    out_bytes: int
    history_bytes: int
    most_quarantined: int
    most_dead: int
    most_held: int
    ledger_entries: int
    most_old: int = MOST_OLD

    @classmethod
    def of(cls, redis_bytes: int) -> "StoreBudgets":
        """Divides what Redis may hold (maxmemory)."""
        return cls(
            waiting_bytes=redis_bytes // 3,
            quarantine_bytes=redis_bytes // 12,
            unsigned_bytes=redis_bytes // 48,
            dead_bytes=redis_bytes // 8,
            out_bytes=redis_bytes // 8,
            history_bytes=redis_bytes // 16,
            most_quarantined=_within(500, redis_bytes // 12 // EVIDENCE_BYTES, 10_000),
            most_dead=_within(1000, redis_bytes // 8 // EVIDENCE_BYTES, 10_000),
            most_held=_within(1000, redis_bytes // 32 // NOTE_BYTES, 10_000),
            ledger_entries=_within(5000, redis_bytes // 12 // LEDGER_ENTRY_BYTES, 200_000),
        )


def memory_limit_bytes(proc: Path = PROC, cgroups: Path = Path("/sys/fs/cgroup"), process: int | str = "self") -> int:
    """Returns the lowest limit of the control groups that the process is in (v2 and v1, every level), else the machine's memory."""
    return min(_limits(proc, cgroups, process), default=_machine_bytes(proc))


def _within(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))


def _limits(proc: Path, cgroups: Path, process: int | str) -> Iterator[int]:
    """Yields the limits that are below the machine's memory: v1 says 2⁶³ where there is none."""
    machine = _machine_bytes(proc)
    for line in control_groups(process, proc).splitlines():
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
    """Yields the group's directory and those above it up to the mount.

    In a container the path may be the host's and not exist; then the container's own limits stand at the mount.
    """
    level = mount / group.lstrip("/")
    while level != mount and mount in level.parents:
        yield level
        level = level.parent
    yield mount


def _machine_bytes(proc: Path) -> int:
    return machine_bytes(proc) or LARGEST_REDIS_BYTES  # no /proc: as on a machine of 1 GiB


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
