"""A mutant is applied to a copy of the tree in a temporary directory; its tests run there until the first failure."""

from __future__ import annotations

import enum
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant, Part

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = 2

SECONDS_PER_MUTANT = 120
"""The tests of a mutant take some seconds; one that hangs for so long has been noticed."""

SECONDS_UNCHANGED = 600
SECONDS_TO_END = 20
"""Interrupted, pytest still ends the servers and processes that its tests have started."""

PASSED, FAILED, INTERRUPTED = 0, 1, 2


_FAILED = re.compile(rb"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


class Outcome(enum.Enum):
    """What became of a mutant, in words for people."""

    KILLED = "killed"
    HUNG = "killed (hung)"
    SURVIVED = "SURVIVED"


@dataclass(frozen=True)
class Fate:
    """A mutant's outcome, and the test that noticed."""

    outcome: Outcome
    by: str = ""


@contextmanager
def unchanged_copy(part: Part) -> Iterator[Path]:
    """What the part's tests need of the tree, from which each mutant gets its copy."""
    with tempfile.TemporaryDirectory(prefix="unchanged-") as place:
        copy = Path(place)
        for folder in part.folders:
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("tests/__init__.py", "pyproject.toml"):
            if not (copy / file).exists():
                shutil.copy2(ROOT / file, copy / file)
        yield copy


def complaint(part: Part, mutants: Sequence[Mutant], copy: Path) -> str:
    """Why nothing can be told by these mutants, '' where all tests pass without one: else the kills would mean nothing."""
    for mutant in mutants:
        if (count := (copy / mutant.file).read_text(encoding="utf-8").count(mutant.old)) != 1:
            return f"{mutant.name}: the guard stands {count} times in {mutant.file}, as it is written here"
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    # What is compiled here, the copies have without compiling it again.
    command = ["-n", str(AT_ONCE), "--dist", "loadfile", *part.arguments, *tests]
    ended = _pytest(copy, command, SECONDS_UNCHANGED, writes_bytecode=True)
    if ended is not None and ended.returncode == PASSED:
        return ""
    said = "they hang" if ended is None else ended.stdout.decode(errors="replace")[-3000:]
    return f"{part.name}: the tests do not pass without any mutant\n{said}"


def fates(part: Part, mutants: Sequence[Mutant], unchanged: Path) -> Iterator[tuple[Mutant, Fate]]:
    """Of each what became of it, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(mutants, pool.map(lambda mutant: _fate(part, mutant, unchanged), mutants), strict=True)


def _fate(part: Part, mutant: Mutant, unchanged: Path) -> Fate:
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place) / "tree"
        shutil.copytree(unchanged, copy)
        file = copy / mutant.file
        changed = file.read_text(encoding="utf-8").replace(mutant.old, mutant.new, 1)
        if file.suffix == ".py":
            compile(changed, str(file), "exec")
        file.write_text(changed, encoding="utf-8")
        ended = _pytest(copy, ["-x", *part.arguments, *mutant.tests], SECONDS_PER_MUTANT, writes_bytecode=False)
    if ended is None:
        return Fate(Outcome.HUNG)
    if ended.returncode not in (PASSED, FAILED, INTERRUPTED):
        raise RuntimeError(f"{mutant.name}: {ended.stdout.decode(errors='replace')[-2000:]}")
    if ended.returncode == PASSED:
        return Fate(Outcome.SURVIVED)
    found = _FAILED.search(ended.stdout)
    return Fate(Outcome.KILLED, found[1].decode(errors="replace") if found else "")


def _pytest(
    copy: Path, arguments: Sequence[str], seconds: float, *, writes_bytecode: bool
) -> subprocess.CompletedProcess[bytes] | None:
    """None when it had to be ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "" if writes_bytecode else "1"}
    with subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            return None
    return subprocess.CompletedProcess(command, process.returncode, said)
