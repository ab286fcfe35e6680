"""Our processes do not interrupt who runs."""

import os
import subprocess
import sys

import pytest

from bus.tuning import wait_for_a_turn

SAYS = "import os; from bus.tuning import wait_for_a_turn; print(wait_for_a_turn(), os.sched_getscheduler(0))"


def test_a_process_and_what_it_starts_wait_for_their_turn() -> None:
    said = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", str(os.SCHED_BATCH)]


def test_where_a_sandbox_refuses_it_the_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    assert wait_for_a_turn() is False
