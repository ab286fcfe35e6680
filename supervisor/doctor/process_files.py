"""What the kernel says in /proc of one process of ours that runs, if this command can see it."""

from pathlib import Path

from supervisor.doctor.case import Case

PROC = Path("/proc")
OURS = b"hashee-agent"


def running_pid(case: Case, proc: Path = PROC) -> int | None:
    """The supervisor, unless it runs where we cannot look: in another container, or under another user."""
    pid = case.supervisor_pid
    if pid is None:
        return None
    try:
        # Its number is that of its own namespace, and may be somebody else's here.
        return pid if OURS in (proc / str(pid) / "cmdline").read_bytes() else None
    except OSError:
        return None
