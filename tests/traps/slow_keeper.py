"""Keeps one private Redis and its file on the disk as the keeper does, until it is killed; what it was told to preload it passes on.

`python -m tests.traps.slow_keeper SERVER STATE_DIR APPENDFSYNC`: prints the server's pid when that answers.
"""

import os
import subprocess
import sys
from pathlib import Path

import trio

from host import embedded, parent_death

SYNC_SECONDS = 0.05


def main(server: str, state_dir: str, appendfsync: str) -> None:
    """The server with its real arguments, but for `appendfsync` where the control wants another."""
    binary = embedded.ServerBinary(Path(server), "redis", embedded.OLDEST_REDIS)
    layout = embedded.prepare(Path(state_dir), Path(state_dir))
    argv = embedded.arguments(binary, layout, "second")
    argv[argv.index("--appendfsync") + 1] = appendfsync
    process = subprocess.Popen(parent_death.command(os.getpid(), argv), stdin=subprocess.DEVNULL)
    trio.run(embedded.wait_ready, layout)
    if appendfsync == "no":
        embedded.FileSync(layout, SYNC_SECONDS).start()
    print(process.pid, flush=True)
    process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
