"""One small change to one file, which takes a guard away, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass

FOLDERS = ("crypto", "host", "bus", "workers", "supervisor", "sandbox", "tests", "docs", "deploy", "bench", "examples")
"""What the tests of bus/ and supervisor/ need of the tree."""


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` becomes `new`: the guard `name` is gone. `tests`: the fewest files that have to notice, quick ones first."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A room's mutants. `folders`: what their tests need of the tree; `arguments`: for pytest, with all of them."""

    name: str
    mutants: tuple[Mutant, ...]
    folders: tuple[str, ...]
    arguments: tuple[str, ...] = ()


def of(file: str, tests: tuple[str, ...], *guards: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """The mutants of one file that the same tests have to notice: of each its name, what stands there, and what stands there instead."""
    return tuple(Mutant(name, file, old, new, tests) for name, old, new in guards)
