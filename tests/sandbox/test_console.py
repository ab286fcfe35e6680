"""The console over its script: what is typed, what is shown, and what is said of what goes wrong."""

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from sandbox.console import Console, ConsoleOptions, run_console
from sandbox.demo import run_demo
from sandbox.script_lines import steps_in
from sandbox.terminal import terminal_lines
from tests.waiting import waiting_for
from workers import Agent, Approval, Chat, InboundFile, Message

pytestmark = pytest.mark.pure


class Booking(msgspec.Struct):
    name: str
    guests: int = 1


class Pictured(msgspec.Struct):
    photo: InboundFile


class Kept(msgspec.Struct):
    messages: int = 0


def agent() -> Agent:
    made = Agent(state=Kept)

    @made.on_command("book")
    async def book(chat: Chat) -> None:
        booking = await chat.ask(Booking)
        if await chat.ask(Approval(f"{booking.name}, {booking.guests}?")):
            await chat.reply("Booked.")
        else:
            await chat.reply("Not booked.")

    @made.on_command("photo")
    async def photo(chat: Chat) -> None:
        file = (await chat.ask(Pictured)).photo
        await chat.reply(f"{file.kind} {file.name}: {(await file.bytes()).decode()}")

    @made.on_command("fail")
    async def fail(chat: Chat) -> None:
        raise ValueError("the cellar is flooded")

    @made.on_command("tea")
    async def tea(chat: Chat) -> None:
        from datetime import timedelta  # noqa: PLC0415 - as an owner may

        await chat.remind("tea", after=timedelta(minutes=5))

    @made.on_reminder("tea")
    async def remind(chat: Chat) -> None:
        await chat.reply("Tea!")

    @made.on_message("text")
    async def answer(message: Message, chat: Chat, state: Kept) -> None:
        state.messages += 1
        await chat.reply(f"{message.sender_id}: {message.text}")

    return made


async def played(script: str, *, as_json: bool = False, record: Path | None = None) -> tuple[list[str], Console]:
    out = io.StringIO()
    options = ConsoleOptions("test:agent", as_json=as_json, record=record)
    console = Console(agent(), options, steps_in(script.splitlines()), out)
    with waiting_for("the console to end", 30):
        await console.run()
    return out.getvalue().splitlines(), console


async def test_a_form_is_filled_in_field_by_field_and_a_button_is_a_number() -> None:
    shown, console = await played("/book\nAnn\n2\n1\n")
    assert shown == [
        *("ann: /book", "agent: [form]", "field: Name (text)"),
        *("ann: Ann", "field: Guests (number, or nothing)"),
        *("ann: 2", "agent: [approval] Ann, 2?", "  #1 approve  #2 reject"),
        *("ann: 1", "agent: Booked."),
    ]
    assert not console.has_failed


async def test_a_file_of_a_form_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a cat.png").write_bytes(b"meow")
    shown, _ = await played(f"/photo\n{tmp_path}/none.png\n'{tmp_path}/a cat.png'\n")
    assert [line.replace(str(tmp_path), "…") for line in shown] == [
        *("ann: /photo", "agent: [form]", "field: Photo (the path of a file)"),
        *("ann: …/none.png", "field: …/none.png is no file here. Photo (the path of a file)"),
        *("ann: '…/a cat.png'", "agent: image a cat.png: meow"),
    ]


async def test_a_number_is_a_word_where_no_card_is_above_it() -> None:
    shown, _ = await played("/book\nAnn\n-\nhello\n1\n#2\n#9\n")
    assert shown[-6:-4] == ["ann: 1", "agent: ann: 1"]
    assert shown[-4:] == ["ann: #2", "agent: Not booked.", "ann: #9", "the last card has buttons 1 to 2"]


async def test_others_groups_and_what_is_not_for_the_agent() -> None:
    shown, _ = await played("hi\n/as ben\nhi\n/group\n~ psst\nhi\n/direct\nhi\n")
    assert [line for line in shown if line.startswith("agent")] == ["agent: ann: hi", *["agent: ben: hi"] * 3]
    assert "you are ben, in the group group" in shown


async def test_time_passes_and_what_is_due_comes() -> None:
    shown, _ = await played("/tea\n/time +4m\n/time +1m\n/time soon\n")
    assert shown[0] == "ann: /tea"
    assert shown[2].startswith("it is ")
    assert shown[4] == "agent: Tea!"
    assert "lets ten minutes pass" in shown[-1]


async def test_what_is_kept_and_done_is_shown_and_a_kill_loses_nothing() -> None:
    shown, _ = await played("hi\n/kill\n/state\nhi\n/trace\n//state\n")
    assert '  "messages": 1' in shown
    assert "settle done" in shown
    assert shown[-1] == "agent: ann: /state", "two slashes say it to the agent"


async def test_an_error_is_shown_whole_and_the_chat_goes_on() -> None:
    shown, console = await played("/fail\nhi\n")
    assert "the handler failed: Traceback (most recent call last):" in shown
    assert "ValueError: the cellar is flooded" in shown
    assert not any("runner.py" in line for line in shown), "it begins with the owner's own code"
    assert shown[-1] == "agent: ann: hi"
    assert console.has_failed


async def test_a_key_error_of_a_handler_is_its_error_and_no_handler_is_said_in_a_line() -> None:
    made, out = Agent(), io.StringIO()

    @made.on_command("look")
    async def look(chat: Chat) -> None:
        found: dict[str, str] = {}
        await chat.reply(found["nothing"])

    console = Console(made, ConsoleOptions("test:agent"), steps_in(["/look", "hi"]), out)
    await console.run()
    shown = out.getvalue().splitlines()
    assert "KeyError: 'nothing'" in shown
    assert shown[-1] == "no handler takes a payload of type 'text'"
    assert console.has_failed


async def test_a_script_that_expects_something_else_fails_by_its_line() -> None:
    shown, console = await played("> hi\n< ann: hi\n> ho\n< nothing like it\n")
    assert console.has_failed
    assert shown[-4:] == [
        "different: line 3: to 'ho' was expected",
        "  < nothing like it",
        "and the agent said",
        "  < ann: ho",
    ]
    _, console = await played("> hi\n< ann: hi\n> /tea\n<\n")
    assert not console.has_failed


async def test_json_has_one_object_a_line_and_says_when_the_agent_rests() -> None:
    shown, _ = await played("/book\nAnn\n-\n", as_json=True)
    told = [json.loads(line) for line in shown]
    assert [one["kind"] for one in told if one["kind"] != "line"] == [
        "card",
        "field",
        "rest",
        "field",
        "rest",
        "card",
        "rest",
    ]
    assert told[-2]["buttons"] == [{"number": 1, "label": "approve"}, {"number": 2, "label": "reject"}]


async def test_what_is_recorded_can_be_played_again_and_has_no_secrets(tmp_path: Path) -> None:
    record = tmp_path / "record.txt"
    await played("/book\nann@example.org\n4\n1\nmy key is sk-12345678abcdef\n", record=record)
    text = record.read_text(encoding="utf-8")
    assert text.startswith("# Recorded by")
    assert "# NOT removed" in text
    assert "example.org" not in text
    assert "sk-1" not in text
    assert "< [approval] redacted-a, 4?" in text.splitlines()
    _, again = await played(text)
    assert not again.has_failed


def test_a_record_that_cannot_be_written_is_said_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "nowhere" / "record.txt"
    assert run_console(ConsoleOptions("workers.builtin.echo:agent", record=record)) == 78
    assert capfd.readouterr().err == f"hashee-agent: {record}: No such file or directory; name a path that is there\n"


def test_without_a_folder_for_temporary_files_the_demo_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as without:
        without.setattr(tempfile, "tempdir", "/dev/null/nowhere")
        assert run_demo(scripted=True) == 78
    assert "set TMPDIR" in capfd.readouterr().err


async def test_lines_come_from_whatever_standard_input_is(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\ntwo", encoding="utf-8")
    reading, writing = os.pipe()
    os.write(writing, b"three\n")
    os.close(writing)
    file, null = (os.open(path, os.O_RDONLY) for path in (tmp_path / "lines", os.devnull))
    for descriptor, lines in ((file, ["one", "two"]), (null, []), (reading, ["three"])):
        assert [line async for line in terminal_lines(descriptor)] == lines
        os.close(descriptor)


def test_an_answer_to_nothing_is_no_script() -> None:
    with pytest.raises(ValueError, match="line 1"):
        steps_in(["< hello"])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "there is no agent.py here: begin an agent with `hashee-agent init .`"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("agent = 1", "is a int, not an Agent"),
        ("from workers import Agent\nagent = Agent()", "has no handler"),
    ],
)
def test_an_agent_that_cannot_be_loaded_is_said_with_what_helps(
    code: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HASHEE_HANDLER", raising=False)
    name = f"agent_{abs(hash(said))}" if code is not None else "agent"
    if code is not None:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    assert run_console(ConsoleOptions(name)) == 78
    assert said in capfd.readouterr().err


def test_a_setting_that_lifespan_misses_is_said_in_one_line_and_what_else_it_raises_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module, line in (("misses", 'os.environ["MY_DATABASE"]'), ("is_away", 'raise ConnectionError("no database")')):
        (tmp_path / f"{module}.py").write_text(
            "import os\nfrom contextlib import asynccontextmanager\nfrom workers import Agent\n"
            f"@asynccontextmanager\nasync def lifespan():\n    {line}\n    yield 1\nagent = Agent(lifespan=lifespan)\n"
            "@agent.on_message()\nasync def answer(chat): ...\n",
            encoding="utf-8",
        )
        assert run_console(ConsoleOptions(module)) == os.EX_CONFIG
        said = capsys.readouterr().err.splitlines()
        if module == "misses":
            assert said == [
                "hashee-agent: lifespan of misses:agent: the environment variable MY_DATABASE is not set (misses.py:6)"
            ]
        else:
            assert said[0].startswith("Traceback")
            assert said[-1] == "hashee-agent: lifespan of is_away:agent: ConnectionError: no database (is_away.py:6)"


def test_an_owners_file_that_hides_one_of_ours_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "bus.py").write_text("", encoding="utf-8")
    assert run_console(ConsoleOptions("agent")) == 78
    [line] = capfd.readouterr().err.splitlines()
    assert "bus.py hides hashee-agent's own package bus" in line
