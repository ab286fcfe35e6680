"""Who is dead: only a process of this host that is surely gone; about others nothing is said."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host.instance import Instance


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def instance_of(pid: int) -> Instance:
    started = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return Instance(Instance.of_this_process().host, pid, started)


def test_this_process_and_its_workers_live() -> None:
    me = Instance.of_this_process()
    assert not me.knows_dead(me.name)
    assert not me.knows_dead(me.worker_name(1))


def test_another_live_process_of_this_host_lives_and_is_dead_once_it_is_gone() -> None:
    me = Instance.of_this_process()
    with process() as child:
        other = instance_of(child.pid)
        assert not me.knows_dead(other.name)
    assert me.knows_dead(other.name)
    assert me.knows_dead(other.worker_name(3))


def test_a_zombie_is_dead() -> None:
    me = Instance.of_this_process()
    with process() as child:
        other = instance_of(child.pid)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
        assert me.knows_dead(other.name)


def test_a_stopped_process_lives() -> None:
    me = Instance.of_this_process()
    with process() as child:
        other = instance_of(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert not me.knows_dead(other.name)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    me = Instance.of_this_process()
    assert me.knows_dead(Instance(me.host, me.pid, me.started - 1).name)


def test_about_a_process_of_another_host_nothing_is_said() -> None:
    me = Instance.of_this_process()
    assert not me.knows_dead(Instance("00000000", 1, 1).name)


def test_about_a_name_of_another_make_nothing_is_said() -> None:
    me = Instance.of_this_process()
    for name in ("", "worker-1", me.host, f"{me.host}-", f"{me.host}-x-y", f"{me.host}-1"):
        assert not me.knows_dead(name)


def test_names_differ_for_each_start_of_a_worker() -> None:
    me = Instance.of_this_process()
    assert len({me.name, me.worker_name(1), me.worker_name(2)}) == 3
