"""Runs first in every program of ours: refuses an owner's file that has the name of one of our packages, sets up output, and makes the
start quicker.

It is run by its path (`runpy`), before anything of ours is imported by name: beside an owner's `bus.py` the name would import
theirs. So it imports the standard library only. A child that we start has `-P`, so that Python does not look into the current
directory; a worker itself reports what is in its handler's way (workers/process/loading.py).
"""

import gc
import io
import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("workers", "crypto", "host", "bus", "supervisor")  # the sandbox is only ever found by -P
RUN_AS = "entrance"
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
GARBAGE_OBJECTS_OF_A_START = 200_000
"""So many more containers made than freed start a garbage collection (Python: 700). Imports make half as many, and all of them stay:
looking through them again and again took a sixth of the CPU of a start. Once all is imported it is less (host/tuning.py)."""
INSTALLED = Path(__file__).resolve().parents[1]


class PackageShadowed(Exception):
    """A file or folder that Python would find first has the name of one of our packages."""

    def __init__(self, name: str, path: Path, remedy: str) -> None:
        super().__init__(f"{path} hides hashee-agent's own package {name}: rename it or {remedy}")
        self.name = name
        self.path = path


def refuse_shadows(directory: Path, installed: Path = INSTALLED, remedy: str = "start from elsewhere") -> None:
    """Raises `PackageShadowed` if, with `directory` first on the path, one of our packages would be imported from elsewhere.

    `installed` is where our packages are.
    """
    for name in PACKAGES:
        found = PathFinder.find_spec(name, [str(directory)])
        if found is None:
            continue
        if found.origin is None and str(installed) in sys.path:
            continue  # a folder without __init__.py gives way to a package further down the path
        path = Path(found.origin or directory / name).resolve()
        if installed / name not in (path, path.parent):
            raise PackageShadowed(name, directory / name if (directory / name).is_dir() else path, remedy)


def open_standard_streams() -> None:
    """Opens /dev/null as descriptor 0, 1 or 2 where that is closed, or the next file or socket would take its number.

    An import may be the first to take one: libffi, which ctypes loads, keeps its own file open (from 3.4 on, where Python uses the system's).
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            os.set_inheritable(descriptor, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def enter() -> None:
    """Ends the process with 78 and one line on stderr if an owner's file hides one of our packages."""
    open_standard_streams()
    gc.set_threshold(GARBAGE_OBJECTS_OF_A_START)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # what the locale cannot show is shown as its number, and ends no command
            stream.reconfigure(errors="backslashreplace")
    if sys.flags.safe_path:
        return
    try:
        directory = Path.cwd().resolve()
        refuse_shadows(directory)
        for entry in _before_ours(sys.path[1:]):
            refuse_shadows(entry, remedy=f"take {entry} out of PYTHONPATH")
    except FileNotFoundError:  # a current directory that was deleted holds nothing
        return
    except PackageShadowed as problem:
        sys.stderr.write(f"hashee-agent: {problem}\n")
        sys.exit(EXIT_CONFIGURATION)
    if sys.path[0] in ("", str(directory)) and directory != INSTALLED:
        del sys.path[0]  # as -P does: a `redis.py` of theirs is not the library


def _before_ours(path: Iterable[str]) -> Iterable[Path]:
    for entry in path:
        if Path(entry).resolve() == INSTALLED:
            return
        yield Path(entry)


if __name__ == RUN_AS:
    enter()
