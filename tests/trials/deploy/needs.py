"""What a trial of `make systemd`, `containers` or `prometheus` needs of its machine.

Whoever asked for one wants no skip: it fails in a line that says what is missing and how to get it.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest


def needing(programs: Mapping[str, str], *, as_root: bool = False) -> Callable[..., Any]:
    """A fixture for every test of its file. `programs`: the name of a program → the Debian package that has it."""

    @pytest.fixture(autouse=True)
    def machine_can() -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            packages = " ".join(sorted({programs[program] for program in missing}))
            cannot(f"without {', '.join(missing)}: apt-get install --no-install-recommends {packages}")
        if as_root and os.geteuid() != 0:
            cannot("as this user: start it as root")

    return machine_can


def cannot(why: str) -> NoReturn:
    """Fails the test in one line."""
    pytest.fail(f"this machine cannot run it {why}", pytrace=False)
