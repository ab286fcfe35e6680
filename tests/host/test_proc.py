"""What /proc says of processes, read in one place."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import proc


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own and a variable, whose name begins like another's."""
    environ = {b"NAME": "value=\N{SNOWMAN}".encode(), b"NAME_OF_MORE": b"no"}  # bytes: the locale may have no snowman
    with subprocess.Popen(
        ["/bin/cat", "-"], process_group=0, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            # when it answers it runs: in the midst of exec, when Popen returns, the kernel tells no command line
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"?")
            assert process.stdout.read(1) == b"?"
            yield process
        finally:
            process.kill()


def test_a_living_child(child: subprocess.Popen[bytes]) -> None:
    assert child.pid in set(proc.children())
    assert child.pid in set(proc.pids())
    assert proc.parent_of(child.pid) == os.getpid()
    assert proc.group_of(child.pid) == child.pid
    assert proc.command_line(child.pid) == b"/bin/cat\x00-\x00"
    assert proc.variable(child.pid, "NAME") == "value=\N{SNOWMAN}"
    assert proc.variable(child.pid, "NAM") is None
    assert proc.start_ticks(child.pid) != proc.start_ticks(os.getpid()) is not None
    assert 0 < proc.rss_bytes(child.pid) < proc.rss_bytes()


def test_a_zombie_and_one_that_was_reaped(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert proc.start_ticks(child.pid) is None
    assert child.pid in set(proc.children())
    child.wait()
    assert proc.start_ticks(child.pid) is None
    assert proc.group_of(child.pid) is None
    assert proc.variable(child.pid, "NAME") is None
    assert proc.rss_bytes(child.pid) == 0
    with pytest.raises(FileNotFoundError):
        proc.command_line(child.pid)


def test_its_descriptors() -> None:
    before = proc.open_descriptors(os.getpid())
    with Path(__file__).open("rb") as file:
        assert proc.open_descriptors(os.getpid()) == before + 1
        assert proc.descriptor(os.getpid(), file.fileno()).readlink() == Path(__file__)
    code = "import os, resource as r; from host import proc; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); print(proc.most_descriptors(os.getpid()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"64\n"


def test_a_name_with_blanks_and_brackets_moves_no_field(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a ) b) S 5 1 1", encoding="ascii")
    assert proc.parent_of(7, tmp_path) == 5


def test_where_there_is_no_proc_nothing_is_made_up(tmp_path: Path) -> None:
    assert proc.machine_bytes(tmp_path) is None
    assert proc.control_groups("self", tmp_path) == ""
    assert list(proc.pids(tmp_path)) == []


def test_the_file_system_of_a_folder_in_memory_and_of_no_device() -> None:
    assert proc.file_system_of(Path("/proc").stat().st_dev) == "proc"
    assert proc.file_system_of(os.makedev(4095, 4095)) == ""
