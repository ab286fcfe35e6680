"""Runs all checks at once, each in a thread with a time limit: a check that hangs is a finding, and hides no other."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from traceback import extract_tb

from host.reasons import fault_of_file
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, bad, unknown

LOOK_SECONDS = 8.0
Look = Callable[[Case], Iterable[Finding]]


class _Run:
    """A running check and its findings so far."""

    def __init__(self, subject: str, look: Look, case: Case) -> None:
        self._subject = subject
        self._look = look
        self._case = case
        self._found: list[Finding] = []
        self.thread = threading.Thread(target=self._run, name="doctor", daemon=True)

    def found(self, limit_seconds: float) -> list[Finding]:
        """Returns the findings, with one more if the check has not ended in time."""
        found = list(self._found)
        if self.thread.is_alive():
            said = f"this look has not ended within {limit_seconds:g} s: what it looks at hangs"
            found.append(bad(self._subject, "time", said, "look at it by hand; dmesg, the network, the disk"))
        return found

    def _run(self) -> None:
        try:
            for finding in self._look(self._case):
                self._found.append(finding)
        except PermissionError as problem:
            said = f"this user may not look: {fault_of_file(problem)}"
            self._found.append(unknown(self._subject, "look", said, "run this as the agent's user"))
        except Exception as problem:  # noqa: BLE001 - a look that fails must not hide the others
            frame = extract_tb(problem.__traceback__)[-1]
            said = f"this look failed: {type(problem).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            self._found.append(unknown(self._subject, "look", said, "a defect of hashee-agent: please report it"))


def examine(case: Case, looks: Mapping[str, Look], limit_seconds: float = LOOK_SECONDS) -> list[Finding]:
    """Returns what all checks find within so many seconds, in their order. `looks`: subject → check."""
    runs = [_Run(subject, look, case) for subject, look in looks.items()]
    deadline = time.monotonic() + limit_seconds
    for run in runs:
        run.thread.start()
    for run in runs:
        run.thread.join(max(0.0, deadline - time.monotonic()))
    return [finding for run in runs for finding in run.found(limit_seconds)]
