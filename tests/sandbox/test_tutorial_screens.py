"""The screens of docs/tutorial.md that only processes show: the generated test, and `dev`. test_tutorial.py has the others."""

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.start_a_project import start_project
from tests.sandbox.test_tutorial import SCREENS

SECONDS = 60.0
FIGURES = re.compile(r"\d+\.\d+ ?s\b|(?<=127\.0\.0\.1:)\d+")
TYPED = re.compile(r"(?:you|ben) › (.+)")
PROMPTS = re.compile(r"^(?:\r?(?:you|ben) › )+", re.MULTILINE)
PROGRAM = (sys.executable, "-P", "-m")


def alike(screen: str) -> list[str]:
    """The lines of a screen without what differs each time, and without those that are empty."""
    return [line.rstrip() for line in FIGURES.sub("N", screen).replace("\r", "").splitlines() if line.strip()]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HASHEE_", "PYTEST", "COLUMNS"))}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "dumb"}


class Screen:
    """What a program has shown, and what is typed into it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._seen = b""

    @property
    def lines(self) -> list[str]:
        return alike(PROMPTS.sub("", self._seen.decode()))

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())
        self._process.stdin.flush()

    def shows(self, count: int) -> None:
        """Reads until so many lines are there."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + SECONDS
        while len(self.lines) < count or not self._seen.endswith((b"\n", "› ".encode())):
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"nothing came any more behind {self.lines}"
            data = os.read(descriptor, 65536)
            if not data:
                return
            self._seen += data


@pytest.mark.long
def test_dev_shows_what_the_page_shows(tmp_path: Path) -> None:
    start_project(tmp_path / "mybot", "chat")
    code = tmp_path / "mybot" / "agent.py"
    command, *expected = alike(SCREENS["dev"])
    assert command == "$ hashee-agent dev"
    with subprocess.Popen(
        [*PROGRAM, "supervisor", "dev"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=code.parent,
        env=environment(),
    ) as process:
        try:
            screen, shown = Screen(process), 0
            for line in expected:
                if found := TYPED.fullmatch(line):
                    screen.shows(shown)
                    screen.type(found[1])
                    continue
                if line.startswith("agent | reload: files have changed"):
                    screen.shows(shown)
                    text = code.read_text(encoding="utf-8")
                    code.write_text(text.replace(" said: ", " wrote: "), encoding="utf-8")
                shown += 1
            screen.shows(shown)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert screen.lines == [line for line in expected if not TYPED.fullmatch(line)]


@pytest.mark.long
def test_the_generated_test_shows_what_the_page_shows(tmp_path: Path) -> None:
    start_project(tmp_path / "mybot", "chat")
    without_ours = ("-p", "no:trio", "-p", "no:anyio", "-p", "no:valkey")  # plugins that a user has not, or has whole
    tested = subprocess.run(
        [*PROGRAM, "pytest", "-q", *without_ours],
        cwd=tmp_path / "mybot",
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert ["$ pytest -q", *alike(tested.stdout)] == alike(SCREENS["pytest"])


def test_each_screen_of_the_page_is_held_by_a_test() -> None:
    tested = {"init", "chat", "form", "script", "json", "pytest", "dev"}
    page = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert SCREENS.keys() == tested
    assert page.count("\n```text") == len(tested)
