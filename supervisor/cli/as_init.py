"""Acts as pid 1 of a container for a program that cannot: passes signals on, reaps all orphans, and ends with its child."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
SIGNAL_EXIT_BASE = 128


def run_as_init(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the program; returns its exit status, 128+N for signal N."""
    child = subprocess.Popen(argv, env=environ)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else SIGNAL_EXIT_BASE - code
