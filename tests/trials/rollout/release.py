"""The code on disk: a module of the owner's that is replaced by another version, or by one that cannot even be imported."""

from pathlib import Path

MODULE = "release_of_the_owner"
HANDLER = f"{MODULE}:agent"

GOOD = '''"""Version {version}, as its owner deployed it."""

import os
from pathlib import Path

from tests.trials.rollout.handlers import agent

with Path({log!r}).open("a") as log:
    log.write(f"{version} {{os.getpid()}}\\n")
'''
BROKEN = '"""A version that crashes at its start."""\n\nraise RuntimeError("this version is broken")\n'


class Releases:
    """One directory with the owner's module in it. `versions` says which were loaded by workers, in order.

    `log` is where that is read; the module writes to `log_there`, the same file as the agent's machine names it.
    """

    def __init__(self, directory: Path, log: Path, log_there: Path | None = None) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self._log = log
        self._log_there = log_there or log
        self.number = 0

    def deploy(self) -> int:
        """The next version, whole at once as a deployment should be."""
        self.number += 1
        self._replace(GOOD.format(version=self.number, log=str(self._log_there)))
        return self.number

    def deploy_broken(self) -> None:
        self.number += 1
        self._replace(BROKEN)

    @property
    def versions(self) -> list[int]:
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        return [int(line.split()[0]) for line in lines]

    def _replace(self, text: str) -> None:
        new = self.directory / f"{MODULE}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.directory / f"{MODULE}.py")
