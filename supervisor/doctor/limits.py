"""Checks the time to stop and the memory that the deployment allows, against what we need; what a platform hides is told as a number to set."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from host.budgets import MIB, Budgets, memory_limit_bytes
from host.proc import PROC, control_groups
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, at_least, bad, judged, ok, unknown
from supervisor.doctor.process_files import running_pid
from supervisor.keeper.keeper import Timings

SUBJECT = "limits"
SYSTEMCTL_SECONDS = 3.0
# What each holds of its own without a message, the page cache left out (2026-11-30, Python 3.11).
KEEPER_BYTES = 24 * MIB
SUPERVISOR_BYTES = 50 * MIB
WORKER_BYTES = 37 * MIB  # with a handler that imports nothing of its own
GATE_BYTES = 40 * MIB  # what the file gate adds while files pass, and for ten minutes behind the last one
USABLE = 0.8  # a rewrite of Redis' file forks, and pages that are written meanwhile count twice
UNIT_SECONDS = {"y": 31_557_600, "month": 2_629_800, "w": 604_800, "d": 86_400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3, "us": 1e-6}  # fmt: skip
NOT_SEEN = "terminationGracePeriodSeconds, stop_grace_period and the like cannot be seen from inside"


def look_at_limits(case: Case, proc: Path = PROC, cgroups: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Yields the findings on the running supervisor's control group, else on that of this command."""
    pid = running_pid(case, proc)
    needed = _stop_seconds(case)
    unit = None if pid is None else unit_of(pid, proc)
    yield _time_to_stop(needed, unit)
    limit = memory_limit_bytes(proc, cgroups, "self" if pid is None else pid)
    yield _memory(case, limit, is_running=pid is not None)


def _stop_seconds(case: Case) -> float:
    timings = Timings()
    return timings.drain_bound(case.drain_seconds) + timings.redis_stop


def _time_to_stop(needed: float, unit: tuple[str, ...] | None) -> Finding:
    said = f"a stop may take {needed:.0f} s; {NOT_SEEN}: give them more than that"
    if unit is None:
        return ok(SUBJECT, "time to stop", said)
    given = span_seconds(_time_of_unit(unit))
    if given is None:
        return unknown(SUBJECT, "time to stop", f"systemctl does not say TimeoutStopSec= of {unit[-1]}; {said}")
    said = f"TimeoutStopSec= of {unit[-1]} is {given:.0f} s, and a stop may take {needed:.0f} s"
    remedy = f"systemctl edit {unit[-1]}: TimeoutStopSec={needed + 10:.0f}; or a smaller HASHEE_DRAIN_SECONDS"
    return judged(SUBJECT, "time to stop", at_least(given, warns=needed + 1, spoils=needed), said, remedy)


def unit_of(pid: int, proc: Path = PROC) -> tuple[str, ...] | None:
    """Returns the arguments by which `systemctl` knows the service that a process is in; None if it is in none."""
    groups = control_groups(pid, proc)
    found = re.search(r"^\d+:(?:name=systemd)?:(.*?/([\w@.\\:-]+\.service))$", groups, re.MULTILINE)
    if found is None or found[2].startswith("user@"):
        return None
    return ("--user", found[2]) if "/user@" in found[1] else (found[2],)


def _time_of_unit(unit: tuple[str, ...]) -> str:
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return ""
    try:
        done = subprocess.run(
            [systemctl, "show", "--property=TimeoutStopUSec", "--value", *unit],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=SYSTEMCTL_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def span_seconds(text: str) -> float | None:
    """Parses a time as systemd writes it ("1min 30s", "infinity"); None if it is none."""
    if text == "infinity":
        return float("inf")
    parts = text.split()
    found = [re.fullmatch(r"(\d+)([a-z]+)", part) for part in parts]
    if not parts or not all(one is not None and one[2] in UNIT_SECONDS for one in found):
        return None
    return sum(int(one[1]) * UNIT_SECONDS[one[2]] for one in found if one is not None)


def _memory(case: Case, limit: int, *, is_running: bool) -> Finding:
    where = "in the agent's control group" if is_running else "here"
    if case.memory_bytes is not None and case.memory_bytes > limit:
        said = f"HASHEE_MEMORY is {case.memory_bytes // MIB} MiB, and {where} {limit // MIB} MiB may be used"
        return bad(SUBJECT, "memory", said, "raise MemoryMax= (limits.memory, mem_limit), or leave HASHEE_MEMORY out")
    budgets = Budgets.of(case.memory_bytes or limit, case.redis_memory_bytes)
    redis_bytes = budgets.redis_bytes if case.redis_is_private else 0
    gate_bytes = GATE_BYTES if case.own_gate is not None and case.own_gate["pid"] else 0
    keeper_bytes = KEEPER_BYTES if case.redis_is_private else 0  # in parts each process has a limit of its own
    processes_bytes = keeper_bytes + SUPERVISOR_BYTES + case.least_workers * WORKER_BYTES + gate_bytes
    filled_bytes = redis_bytes + budgets.intake_bytes
    said = (
        f"{limit // MIB} MiB may be used {where}; Redis may take {redis_bytes // MIB}, what comes in "
        f"{budgets.intake_bytes // MIB}, the idle processes at least {processes_bytes // MIB}"
        f"{f', the file gate {gate_bytes // MIB} of them' if gate_bytes else ''}"
    )
    remedy = (
        "raise MemoryMax= (limits.memory, mem_limit), or lower HASHEE_REDIS_MEMORY or HASHEE_WORKERS; "
        "HASHEE_FILES_URL=none where no files are wanted; docs/deploy/memory.md"
    )
    verdict = at_least(limit, warns=processes_bytes + filled_bytes / USABLE, spoils=processes_bytes + filled_bytes)
    return judged(SUBJECT, "memory", verdict, said, remedy)
