"""What a test has started ends with the test's process, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.supervisor.keeper.running import is_alive
from tests.waiting import waiting_for

ROOT = Path(__file__).parents[2]
AN_AGENT = """
import os, sys, trio
from pathlib import Path
from sandbox.children import running

async def main():
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    async with running("child", argv, log_path=Path(sys.argv[1]) / "log", environment=os.environ) as child:
        print(child.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
A_REDIS = """
import sys, time
from pathlib import Path
from tests.redis_server import running_redis

with running_redis(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("program", [AN_AGENT, A_REDIS], ids=["an agent", "a Redis"])
async def test_a_child_ends_with_a_test_process_that_is_killed(tmp_path: Path, program: str) -> None:
    argv = [sys.executable, "-c", program, str(tmp_path)]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)  # noqa: ASYNC220 - it returns at once
    assert parent.stdout is not None
    pid = 0
    try:
        with parent.stdout as lines:
            pid = int(lines.readline())
            assert is_alive(pid)
            parent.kill()
        parent.wait()
        with waiting_for("the child to end with its parent", 10):
            while is_alive(pid):
                await trio.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
        if pid and is_alive(pid):
            os.kill(pid, signal.SIGKILL)
