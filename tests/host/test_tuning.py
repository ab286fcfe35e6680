"""Our processes do not interrupt who runs, and give back what was large."""

import ctypes
import os
import subprocess
import sys

import pytest

from host.entrance import GARBAGE_OBJECTS_OF_A_START
from host.tuning import GARBAGE_OBJECTS, LARGE_BYTES, wait_for_a_turn

SAYS = """
import os, subprocess, sys
from host.tuning import wait_for_a_turn
os.sched_setscheduler(0, {policy}, os.sched_param(0))
print(wait_for_a_turn(), os.sched_getscheduler(0))
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], check=True)
"""


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [(os.SCHED_OTHER, "True", os.SCHED_BATCH), (os.SCHED_IDLE, "False", os.SCHED_IDLE)],
)
def test_a_process_and_what_it_starts_wait_for_their_turn_unless_somebody_chose_otherwise(
    before: int, changes: str, after: int
) -> None:
    command = [sys.executable, "-u", "-c", SAYS.format(policy=before)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert said.split() == [changes, str(after), str(after)]


def test_where_a_sandbox_refuses_it_the_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    assert wait_for_a_turn() is False


def test_a_sandbox_that_refuses_even_the_question_costs_nothing_but_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr("os.sched_getscheduler", refuse)
    assert not wait_for_a_turn()


ALONE = """
import ctypes, sys
from host.tuning import give_large_memory_back

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
if "tuned" in sys.argv:
    assert give_large_memory_back()
bytes(16 << 20)  # once freed, glibc keeps for itself whatever is smaller
before = mallinfo().hblkhd
large = b"x" * int(sys.argv[1])
print(mallinfo().hblkhd - before >= len(large))
"""


def test_a_large_block_stands_alone_and_so_goes_back_to_the_kernel_also_after_larger_ones() -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("no glibc, or one before 2.33")

    def stands_alone(size: int, *how: str) -> bool:
        command = [sys.executable, "-c", ALONE, str(size), *how]
        return subprocess.run(command, check=True, capture_output=True, encoding="ascii").stdout == "True\n"

    assert not stands_alone(LARGE_BYTES)
    assert stands_alone(LARGE_BYTES, "tuned")
    assert not stands_alone(256 * 1024, "tuned")  # our reads


AT_THE_START = """
import gc, runpy
of_python = gc.get_freeze_count()  # 3.12 begins with some
from host import entrance
runpy.run_path(entrance.__file__, run_name=entrance.RUN_AS)
before = gc.get_threshold()[0], gc.get_freeze_count() - of_python
from host.tuning import collect_garbage_rarely
collect_garbage_rarely()
print(*before, gc.get_threshold()[0], gc.get_freeze_count() > 1000)
"""


def test_garbage_is_looked_for_rarely_from_the_start_on_and_never_among_what_was_imported() -> None:
    command = [sys.executable, "-P", "-c", AT_THE_START]
    said = subprocess.run(command, check=True, capture_output=True, encoding="ascii").stdout
    assert said.split() == [str(GARBAGE_OBJECTS_OF_A_START), "0", str(GARBAGE_OBJECTS), "True"]


OF_A_COMMAND = """
import click, gc
from supervisor.cli import cli
gc.set_threshold(200_000)
cli.get_command(click.Context(cli), "version")
print(gc.get_threshold()[0], gc.get_freeze_count() > 1000)
"""


def test_a_command_is_imported_without_looking_for_garbage_and_looks_for_it_when_it_runs() -> None:
    command = [sys.executable, "-P", "-c", OF_A_COMMAND]
    said = subprocess.run(command, check=True, capture_output=True, encoding="ascii").stdout
    assert said.split() == [str(GARBAGE_OBJECTS), "True"]
