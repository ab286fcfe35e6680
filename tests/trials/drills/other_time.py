"""Another time for the processes of a drill, Redis too: the clock on the wall is turned, or a machine counts on from where it was put back to."""

import os
import shutil
import struct
import subprocess
from pathlib import Path
from shlex import quote

from host.embedded import find_server

SOURCE = Path(__file__).with_suffix(".c")
NUMBERS = struct.Struct("=qq")
NANOSECONDS = 1_000_000_000


class OtherTime:
    """Of all processes that are started with `settings`; as it is until it is changed. Raises RuntimeError where there is no C compiler."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        library = directory / "other_time.so"
        settings = {"LD_PRELOAD": str(library), "DRILL_CLOCK": str(self._file)}
        self.settings = {**settings, "PATH": f"{_server_in(directory, settings)}{os.pathsep}{os.environ['PATH']}"}
        self.change()
        compiler = shutil.which("cc")
        if compiler is None:
            raise RuntimeError("a drill with another time needs a C compiler: install `cc` (gcc or clang)")
        command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(f"{SOURCE.name}: {done.stderr}")

    def change(self, *, wall_seconds: float = 0.0, since_start_seconds: float = 0.0) -> None:
        """From now on the clock on the wall, and the time since the start of the host, are so far ahead of the true ones."""
        added = NUMBERS.pack(int(wall_seconds * NANOSECONDS), int(since_start_seconds * NANOSECONDS))
        if not self._file.exists():
            self._file.write_bytes(added)
        with self._file.open("r+b") as file:  # mapped by all of them: never cut
            file.write(added)


def _server_in(directory: Path, settings: dict[str, str]) -> Path:
    """A folder with what starts the private Redis in this time: the keeper hands on nothing of its environment but PATH and the like."""
    folder, server = directory / "bin", find_server().path
    folder.mkdir()
    script = folder / server.name
    named = " ".join(f"{name}={quote(value)}" for name, value in settings.items())
    script.write_text(f'#!/bin/sh\n{named} exec {quote(str(server))} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return folder
