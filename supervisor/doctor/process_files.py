"""Which processes that this command sees are ours, by their titles."""

from pathlib import Path

from host.proc import PROC, command_line
from supervisor.doctor.case import Case

OURS = b"hashee-agent"


def running_pid(case: Case, proc: Path = PROC) -> int | None:
    """The supervisor, unless it runs where we cannot look: in another container, or under another user."""
    pid = case.supervisor_pid
    # Its number is that of its own namespace, and may be somebody else's here.
    return pid if pid is not None and is_ours(pid, proc) else None


def is_ours(pid: int, proc: Path = PROC) -> bool:
    """Whether a process that we can see has our title."""
    try:
        return OURS in command_line(pid, proc)
    except OSError:
        return False
