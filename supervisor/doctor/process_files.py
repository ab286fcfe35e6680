"""Which processes that this command sees are ours, by their titles."""

from pathlib import Path

from host.proc import PROC, command_line
from supervisor.doctor.case import Case

OURS = b"hashee-agent"


def running_pid(case: Case, proc: Path = PROC) -> int | None:
    """Returns the supervisor's pid; None if it runs where we cannot look, in another container or under another user."""
    pid = case.supervisor_pid
    # The pid is of its own namespace, and may be another process here.
    return pid if pid is not None and is_ours(pid, proc) else None


def is_ours(pid: int, proc: Path = PROC) -> bool:
    """Returns whether a visible process has our title."""
    try:
        return OURS in command_line(pid, proc)
    except OSError:
        return False
