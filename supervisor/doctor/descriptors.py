"""Checks how many descriptors the running supervisor has open, against its limit."""

from collections.abc import Iterator
from pathlib import Path

from host.proc import PROC, most_descriptors, open_descriptors
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, at_most, judged, unknown
from supervisor.doctor.process_files import running_pid

SUBJECT = "descriptors"
WARNS_FROM = 0.7
SPOILS_FROM = 0.9
REMEDY = "raise LimitNOFILE= (ulimit -n), and look at what is open: ls -l /proc/{0}/fd"


def look_at_descriptors(case: Case, proc: Path = PROC) -> Iterator[Finding]:
    """Yields the finding on the supervisor, which holds the relay, Redis, the status port and a pipe for each worker."""
    pid = running_pid(case, proc)
    if pid is None:
        yield unknown(SUBJECT, "supervisor", "no supervisor that runs here can be looked at")
        return
    try:
        used, most = open_descriptors(pid, proc), most_descriptors(pid, proc)
    except OSError as problem:
        yield unknown(SUBJECT, "supervisor", f"/proc/{pid}: {problem.strerror}", "run this as the agent's user")
        return
    if most is None:
        yield unknown(SUBJECT, "supervisor", f"{used} open, without a limit")
        return
    verdict = at_most(used / most, warns=WARNS_FROM, spoils=SPOILS_FROM)
    yield judged(SUBJECT, "supervisor", verdict, f"{used} of {most} are open", REMEDY.format(pid))
