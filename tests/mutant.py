"""One small change to one file that takes a guard away."""

from __future__ import annotations

from dataclasses import dataclass

ROOMS = ("crypto", "bus", "workers", "supervisor", "sandbox", "tests")


@dataclass(frozen=True)
class Mutant:
    """In `file`, the first `old` becomes `new`: the guard `name` is gone.

    `file`: a module of crypto/, or a path. `tests`: the fewest that have to notice, for one elsewhere than in crypto/.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.file if "/" in self.file else f"crypto/{self.file}.py"

    @property
    def folders(self) -> tuple[str, ...]:
        """What its tests need."""
        return ROOMS if self.tests else ("crypto", "tests/crypto", "tests/fuzz", "tests/vectors")
