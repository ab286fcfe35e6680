"""`python -m tests.forking FD`: imports every command once, and forks a process for each one that is asked for (tests/commands.py).

A wish has argv, environment and directory, and descriptors: the three standard streams, and a socket that gets the process' id
and later its exit status.
"""

import gc
import io
import json
import os
import pkgutil
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import supervisor.cli
from tests.commands import LARGEST_WISH_BYTES

DESCRIPTORS = 4


def main(descriptor: int) -> None:
    for found in pkgutil.walk_packages(supervisor.cli.__path__, "supervisor.cli."):
        with suppress(ModuleNotFoundError):  # of an extra that is not here: the command says so when it is called
            import_module(found.name)
    gc.freeze()  # a collection would copy every page that they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the minders are reaped by themselves
    with socket.socket(fileno=descriptor) as asked:
        while True:
            wish, descriptors, _, _ = socket.recv_fds(asked, LARGEST_WISH_BYTES, DESCRIPTORS)
            if not wish:
                return
            if os.fork() == 0:
                asked.close()
                mind(json.loads(wish), descriptors)
            for one in descriptors:
                os.close(one)


def mind(wish: dict[str, object], descriptors: list[int]) -> NoReturn:
    """Has a child do it, and says how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=descriptors.pop()) as answers:
        pid = os.fork()
        if pid == 0:
            answers.close()
            become(wish, descriptors)
        answers.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        answers.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(wish: dict[str, object], descriptors: list[int]) -> NoReturn:
    """Runs the command, as the console script does."""
    match wish:
        case {"argv": list(argv), "environ": dict(environ), "cwd": str(cwd)}:
            os.setsid()
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environ)
            sys.argv = argv
            for stream, descriptor in enumerate(descriptors):
                os.dup2(descriptor, stream)
                os.close(descriptor)
            encoding = environ.get("PYTHONIOENCODING", "utf-8")
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding)
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(io.BufferedWriter(io.FileIO(one, "w", closefd=False)), encoding) for one in (1, 2)
            )
            leave(run())
    raise TypeError(wish)


def run() -> int:
    try:
        supervisor.cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def leave(status: int) -> NoReturn:
    """Ends without what this process has inherited to be done at the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]))
