"""The demo as a newcomer meets it: real processes from one command, and nothing of it left afterwards."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from sandbox.children import relay_process, running
from sandbox.start_a_project import STARTER
from tests.sandbox.relay import until
from tests.waiting import waiting_for

DEMO = [sys.executable, "-m", "sandbox", "demo"]


BROKEN = """from workers import Agent
agent = Agent()
@agent.on_message()
async def answer(message, chat):
    raise ValueError("cannot do " + message.text)
"""


def processes_with(mark: str) -> list[int]:
    """Pids of processes, ours or our children's, that carry this environment mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if mark.encode() in environment and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def environment(tmp_path: Path) -> dict[str, str]:
    """The demo's: a mark by which its processes are found again, a place for its folder, and a terminal that shows everything."""
    terminal = {"TERM": "xterm", "LC_ALL": "C.UTF-8"}
    return {**os.environ, **terminal, "TMPDIR": str(tmp_path), "DEMO_MARK": mark(tmp_path)}


def mark(tmp_path: Path) -> str:
    return f"demo-of-{tmp_path}"


def nothing_is_left(tmp_path: Path) -> bool:
    return not processes_with(mark(tmp_path)) and not list(tmp_path.glob("hashee-demo-*"))


def test_the_scripted_conversation_is_answered_whole_and_leaves_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        DEMO, stdin=subprocess.DEVNULL, capture_output=True, env=environment(tmp_path), timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()
    outcome = json.loads(result.stdout.decode().splitlines()[-1])
    expected = {"sent": 20, "answered": 20, "lost": 0, "duplicated": 0, "reordered": 0}
    assert expected.items() <= outcome.items()
    assert outcome["encrypted"] == "hashee-envelope-v1.2"
    assert (outcome["people"], outcome["streamed"], outcome["reconnects"] >= 1) == (3, 1, True)
    assert nothing_is_left(tmp_path)


class Terminal:
    """The other end of a pseudo-terminal."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._descriptor = descriptor
        self._seen = ""
        self.all_seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def expect(self, text: str, seconds: float = 30.0) -> None:
        """Reads until this text has been seen after the last one."""
        deadline = time.monotonic() + seconds
        while text not in self._seen:
            self._seen += self._read(deadline).decode(errors="replace")
        self._seen = self._seen.split(text, 1)[1]

    def expect_all(self, *texts: str, seconds: float = 30.0) -> None:
        """Reads until all of these have been seen after the last one, in any order."""
        deadline = time.monotonic() + seconds
        while not all(self._seen.count(text) >= texts.count(text) for text in texts):
            self._seen += self._read(deadline).decode(errors="replace")
        self._seen = self._seen[max(self._seen.rindex(text) + len(text) for text in texts) :]

    def _read(self, deadline: float) -> bytes:
        is_readable, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert is_readable, f"nothing came any more after {self._seen!r}"
        data = os.read(self._descriptor, 65536)
        self.all_seen += data.decode(errors="replace")
        return data

    @property
    def seen(self) -> str:
        """What came behind what was expected last."""
        return self._seen

    def drain(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        try:
            while self._read(deadline):
                pass
        except OSError:
            return  # the end of a terminal whose other side is closed


@contextmanager
def demo_on_a_terminal(
    tmp_path: Path, *, cwd: Path | None = None, command: Sequence[str] = DEMO, **settings: str
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(tmp_path) | settings,
        cwd=cwd,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_a_chat_shows_the_stream_and_quits(tmp_path: Path) -> None:
    with demo_on_a_terminal(tmp_path) as terminal:
        terminal.expect("you ›")
        terminal.type("hello\n")
        terminal.expect("echo: hello")
        terminal.type(f"/stream one two {'and so on ' * 10}end\n")
        terminal.expect("typing…")
        terminal.expect("echo: one two")
        assert "end" not in terminal.seen, "it was shown before its end, which is three seconds away"
        terminal.expect("end")
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert nothing_is_left(tmp_path)


@pytest.mark.long
def test_a_terminal_that_is_read_aloud_gets_each_answer_once_whole_and_without_colour(tmp_path: Path) -> None:
    with demo_on_a_terminal(tmp_path, TERM="dumb") as terminal:
        terminal.expect("you ›")
        terminal.type("/stream one two three four\n")
        terminal.expect("you ›")
        terminal.expect("echo: one two three four")
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert terminal.all_seen.count("echo: one") == 1
    assert "\x1b" not in terminal.all_seen


def test_on_a_terminal_a_handlers_error_is_shown_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken_agent.py").write_text(BROKEN, encoding="utf-8")
    with demo_on_a_terminal(tmp_path, cwd=tmp_path, HASHEE_HANDLER="broken_agent:agent") as terminal:
        terminal.expect("you ›")
        terminal.type("the words\n")
        terminal.expect("broken_agent.py")
        terminal.expect("ValueError: cannot do the words")
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0


@pytest.mark.long
def test_an_agent_that_is_being_written_is_reloaded_and_its_cards_are_answered_by_numbers(tmp_path: Path) -> None:
    code = (STARTER / "form" / "agent.py.txt").read_text(encoding="utf-8")
    (tmp_path / "agent.py").write_text(code, encoding="utf-8")
    dev = [sys.executable, "-P", "-m", "supervisor", "dev"]
    with demo_on_a_terminal(tmp_path, cwd=tmp_path, command=dev) as terminal:
        terminal.expect("you ›", 60)
        for typed, shown in (
            ("/book", "field › Name"),
            ("Ann", "field › Day"),
            ("2026-12-01", "#1 approve  #2 reject"),
        ):
            terminal.type(f"{typed}\n")
            terminal.expect(shown)
        terminal.expect("you ›")
        terminal.type("1\n")
        terminal.expect("Booked.")
        terminal.expect("you ›")
        changed = code.replace('await chat.reply("Write', 'print("it prints")\n    await chat.reply("Please write')
        (tmp_path / "agent.py").write_text(changed, encoding="utf-8")
        terminal.expect("reload: done")
        terminal.type("hi\n")
        terminal.expect("Please write /book")
        terminal.expect("handler | it prints")
        (tmp_path / "agent.py").write_text("import nothing_like_it", encoding="utf-8")
        terminal.expect("No module named 'nothing_like_it'")
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert nothing_is_left(tmp_path)


TALKING = """import trio
from workers import Agent
agent = Agent()
@agent.on_command("slow")
async def slow(chat):
    await chat.reply("begun")
    await trio.sleep(1)
    await chat.reply("ended")
@agent.on_command("export")
async def export(chat):
    async with chat.progress("Exporting", cancel="Stop") as bar:
        await trio.sleep(300)
    await chat.reply("Stopped." if bar.cancelled else "Done.")
"""


COMMANDED = """from datetime import timedelta
from pathlib import Path
import msgspec
import trio
from workers import Agent
class Kept(msgspec.Struct):
    messages: int = 0
agent = Agent(state=Kept)
@agent.on_command("tea")
async def tea(chat):
    await chat.remind("tea", after=timedelta(minutes=5))
    await chat.remind("day", daily="08:00", tz="UTC")
    await chat.reply("I will.")
@agent.on_reminder("tea")
async def say(chat):
    await chat.reply("Tea!")
@agent.on_reminder("day")
async def day(chat, job):
    await chat.reply("Morning!" if not job.lateness else "late")
@agent.on_command("slow")
async def slow(chat):
    await chat.reply("begun")
    while not Path("go").exists():
        await trio.sleep(0.05)
    await chat.reply("ended")
@agent.on_message("text")
async def answer(message, chat, state):
    state.messages += 1
    await chat.reply(f"{message.text} of {message.sender_display_name}, {state.messages}")
"""


@pytest.mark.long
def test_the_chat_of_an_author_takes_the_commands_of_the_console(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(COMMANDED, encoding="utf-8")
    dev = [sys.executable, "-P", "-m", "supervisor", "dev"]
    with demo_on_a_terminal(tmp_path, cwd=tmp_path, command=dev) as terminal:
        terminal.expect("you ›", 60)
        for typed, *shown in (
            ("hello", "hello of you, 1"),
            ("/as ben", "you are ben, alone with the agent", "ben ›"),
            ("hi", "hi of ben, 1"),
            ("/group lunch", "you are ben, in the group lunch"),
            ("shall we", "shall we of ben, 1"),
            ("/as cem", "you are cem, in the group lunch"),
            ("~ not for it", "cem ›"),
            ("we shall", "we shall of cem, 2"),
            ("/direct", "you are cem, alone with the agent"),
            ("/state", "nothing is kept of this conversation"),
            ("/as you", "you are yourself, alone with the agent"),
            ("/tea", "I will."),
            ("/time +4m", "nothing was due", "0:04:00 earlier"),
            ("/time +1m", "Tea!", "one thing came due"),
            ("/time +2d", "Morning!", "Morning!", "2 things came due"),
            ("/time soon", "/time +10m has what is due"),
            ("/slow", "begun"),
            ("/kill", "2 workers are killed"),
            ("//go", "/go of you, 2", "ended"),
            ("/state", '"messages": 2'),
            ("/trace", "done", "taken from a worker that is gone", "acknowledged"),
            ("/trace", "nothing was done here since"),
            ("//state", "/state of you, 3"),
            ("/?", "/time +10m"),
        ):
            if typed == "//go":
                (tmp_path / "go").touch()
            terminal.type(f"{typed}\n")
            terminal.expect_all(*shown)
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert nothing_is_left(tmp_path)


@pytest.mark.long
def test_the_console_on_a_terminal_goes_on_while_a_handler_runs(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(TALKING, encoding="utf-8")
    console = [sys.executable, "-P", "-m", "supervisor", "console"]
    with demo_on_a_terminal(tmp_path, cwd=tmp_path, command=console) as terminal:
        terminal.expect("ann: ")
        terminal.type("/slow\n")
        terminal.expect("agent: begun")
        terminal.type("/kill\n")
        terminal.expect("another has begun")
        terminal.expect("agent: ended")
        assert "begun" not in terminal.seen, "it was said before the kill"
        terminal.type("/export\n")
        terminal.expect("#1 Stop")
        terminal.type("1\n")
        terminal.expect("agent: Stopped.")
        terminal.type("/quit\n")
        terminal.drain()
        assert terminal.process.wait(20) == 0


def test_the_end_of_input_ends_the_chat(tmp_path: Path) -> None:
    with demo_on_a_terminal(tmp_path) as terminal:
        terminal.expect("you ›")
        terminal.type("\x04")
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert nothing_is_left(tmp_path)


@pytest.mark.long
def test_an_interrupt_ends_the_chat_with_exit_code_0(tmp_path: Path) -> None:
    with demo_on_a_terminal(tmp_path) as terminal:
        terminal.expect("you ›")
        terminal.process.send_signal(signal.SIGINT)
        terminal.drain()
        assert terminal.process.wait(20) == 0
    assert nothing_is_left(tmp_path)


async def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    async with running("demo", [*DEMO, "--scripted"], log_path=log, environment=environment(tmp_path)) as demo:

        async def talks() -> bool:
            return "hello" in log.read_text(encoding="utf-8")

        await until(talks, seconds=30)
        await demo.end(signal.SIGKILL, 5)

        async def alone() -> bool:
            return not processes_with(mark(tmp_path))

        await until(alone, seconds=10)


@pytest.mark.long
async def test_an_interrupted_script_drains_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    async with running("demo", [*DEMO, "--scripted"], log_path=log, environment=environment(tmp_path)) as demo:

        async def talks() -> bool:
            return "hello" in log.read_text(encoding="utf-8")

        await until(talks, seconds=30)
        assert await demo.end(signal.SIGINT, 20) == 130
    assert nothing_is_left(tmp_path)


async def test_a_failed_start_shows_what_the_agent_said(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    settings = {**environment(tmp_path), "HASHEE_WORKERS": "none"}
    async with running("demo", [*DEMO, "--scripted"], log_path=log, environment=settings) as demo:
        with waiting_for("the demo to end", 30):
            assert await demo.wait() == 1
    assert "HASHEE_WORKERS" in log.read_text(encoding="utf-8")
    assert nothing_is_left(tmp_path)


async def test_the_relay_ends_at_once_on_a_signal_though_clients_are_connected(tmp_path: Path) -> None:
    async with relay_process(log_path=tmp_path / "log") as (relay, url):
        host, port = url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)):
            assert await relay.end(signal.SIGTERM, 2) == -signal.SIGTERM


async def test_the_relay_dies_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import os, subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'sandbox', 'relay', '--exit-with-parent', str(os.getpid())]\n"
        "subprocess.Popen(command)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "log"
    argv = [sys.executable, "-c", parent]
    async with running("parent", argv, log_path=log, environment=environment(tmp_path)) as process:

        async def is_up() -> bool:
            return "url" in log.read_text(encoding="utf-8")

        await until(is_up, seconds=10)
        await process.end(signal.SIGKILL, 5)

        async def alone() -> bool:
            return not processes_with(mark(tmp_path))

        await until(alone, seconds=5)


def test_a_terminal_or_pipe_that_cannot_show_a_character_ends_nothing(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run(
        [*DEMO, "--scripted"], capture_output=True, env=environment(tmp_path) | plain, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()
    assert b"two workers \\u2026" in result.stdout
