"""`hashee-agent console`: an agent and whoever sits here, in one process, over the bus in memory of workers/testing. Time is real.

On a terminal the agent says what it says while lines are typed; a script or a pipe is taken line by line, each when the agent has nothing more to do.
"""

import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO, cast

import msgspec
import trio

from host.reasons import fault_of_file
from sandbox.answering import Asks, CardAnswers, Given, Note
from sandbox.cards import Cards
from sandbox.drawing import buttons_of, drawn
from sandbox.redaction import HEAD, Redaction
from sandbox.script_lines import Step, difference, steps_in
from sandbox.terminal import is_waited_for, terminal_lines
from sandbox.typed import QUIT, seconds_in, without_mark
from workers.errors import CannotStart
from workers.handling.agent import Agent
from workers.process.loading import CannotLoad, load_agent
from workers.process.start_errors import missing_variable, report_of
from workers.testing import Harness, HarnessChat, NoHandler, Said
from workers.testing.said import answer_to_card

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 78
HANDLER: Final = "HASHEE_HANDLER"
DEFAULT_HANDLER: Final = "agent:agent"
OURS: Final = tuple(f"{Path(__file__).resolve().parents[1] / name}{os.sep}" for name in ("workers", "sandbox"))
HELP: Final = """\
Lines are said to the agent. Besides:
  #1            presses the first button of the last card; so does 1 right below it
  -             leaves a field of a form empty
  /cancel       leaves a form, or ends a question
  /as NAME      talk as somebody else          /group [NAME]  in a group      /direct  alone with the agent again
  /file PATH    sends a file
  ~ words       in a group, not to the agent
  /time +10m    lets time pass (s, m, h, d)    /kill   kills the worker; what runs runs again
  /state /history /trace /dead                 what is kept, what was done, what was given up; /retry has that begin again
  //state       says /state to the agent       /quit   ends (Ctrl-D too)"""


@dataclass(frozen=True)
class ConsoleOptions:
    """`handler`: MODULE:NAME; None: HASHEE_HANDLER, else agent:agent. `script`: where lines come from; None: standard input."""

    handler: str | None
    script: Path | None = None
    record: Path | None = None
    as_json: bool = False
    person: str = "ann"


def run_console(options: ConsoleOptions) -> int:
    """Runs it; returns the exit code: 1 if a handler has failed, or the agent has said something else than the script expects."""
    handler = chosen_handler(options.handler)
    try:
        agent = load_agent(handler, Path.cwd())
        if options.record is not None:
            options.record.write_text(HEAD, encoding="utf-8")  # where it cannot be written, nothing is begun
        steps = None if options.script is None else steps_in(options.script.read_text(encoding="utf-8").splitlines())
    except CannotLoad as error:
        return _cannot_load(error, handler)
    except OSError as error:
        print(f"hashee-agent: {fault_of_file(error)}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except ValueError as error:
        print(f"hashee-agent: {options.script}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    console = Console(agent, options, steps)
    try:
        trio.run(console.run)
    except KeyboardInterrupt:
        print()
    except CannotStart as error:
        print(f"hashee-agent: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except Exception as error:
        if console.has_begun:
            raise
        return _not_opened(error, handler)
    return EXIT_FAILED if console.has_failed else os.EX_OK


def chosen_handler(named: str | None) -> str:
    """Returns which agent is meant, as MODULE:NAME."""
    handler = named or os.environ.get(HANDLER) or DEFAULT_HANDLER
    return handler if ":" in handler else f"{handler.removesuffix('.py')}:agent"


def load_or_say(handler: str) -> int:
    """Loads an agent as a worker will; returns 0, or another exit code when it has said why it cannot be loaded."""
    try:
        load_agent(handler, Path.cwd())
    except CannotLoad as error:
        return _cannot_load(error, handler)
    return os.EX_OK


def _cannot_load(error: CannotLoad, handler: str) -> int:
    report, cause = error.report, error.__context__
    if isinstance(cause, ModuleNotFoundError) and cause.name == handler.partition(":")[0]:
        print(
            f"hashee-agent: there is no {cause.name}.py here: begin an agent with `hashee-agent init .`, or name yours as MODULE:NAME",
            file=sys.stderr,
        )
        return EXIT_CONFIGURATION
    if report.kind == "import" and cause is not None and report.file:
        traceback.print_exception(cause)
    place = f" ({Path(report.file).name}:{report.line})" if report.file and report.line else ""
    print(f"hashee-agent: {handler} cannot be loaded: {report.last_line}{place}", file=sys.stderr)
    return EXIT_CONFIGURATION


def _not_opened(error: Exception, handler: str) -> int:
    """Says why the owner's lifespan could not be entered, in a line where that says it all."""
    report = report_of(error, Path.cwd(), "lifespan")
    if missing_variable(error) is None:
        traceback.print_exception(error)
    place = f" ({Path(report.file).name}:{report.line})" if report.file and report.line else ""
    print(f"hashee-agent: lifespan of {handler}: {report.last_line}{place}", file=sys.stderr)
    return EXIT_CONFIGURATION


class Console:
    """`has_begun`: the agent's lifespan was entered. `has_failed`: a handler has, or the agent has said something else than the script expects."""

    def __init__(
        self, agent: Agent, options: ConsoleOptions, steps: list[Step] | None, out: TextIO = sys.stdout
    ) -> None:
        self._agent = agent
        self._options = options
        self._steps = steps
        self._out = out
        self._harness = Harness(agent, person=options.person)
        self._cards: dict[str, Cards] = {}
        self._shown: dict[str, int] = {}
        self._answers = CardAnswers()
        self._is_interactive = steps is None and sys.stdin.isatty() and not options.as_json
        self._said: list[str] = []
        self._traced = 0
        self._lock = trio.Lock()
        self._record: TextIO | None = None
        self._redaction = Redaction()
        self.has_begun = self.has_failed = False

    async def run(self) -> None:
        """Until /quit or the end of the lines."""
        async with self._harness as chat:
            self.has_begun = True
            self._chat = chat
            if self._options.record is not None:
                self._record = self._options.record.open("w", encoding="utf-8")
                self._record.write(HEAD)
            try:
                await (self._talk() if self._is_interactive else self._play())
            finally:
                if self._record is not None:
                    self._record.close()

    # Line by line

    async def _play(self) -> None:
        async for step in self._all_steps():
            if step.line in QUIT:
                return
            self._said.clear()
            self._echo(step.line)
            await self._take(step.line)
            await self._until_rest()
            self._write_record(step.line)
            if differs := difference(step, self._said):
                self.has_failed = True
                self._tell("difference", differs)
            if self._options.as_json:
                self._emit({"kind": "rest"})

    async def _all_steps(self) -> AsyncIterator[Step]:
        if self._steps is not None:
            for step in self._steps:
                yield step
        elif is_waited_for(sys.stdin.fileno()):
            number = 0
            async for line in terminal_lines():
                number += 1
                for step in steps_in([line]):
                    yield Step(step.line, number)
        else:
            for step in steps_in(sys.stdin.read().splitlines()):
                yield step

    async def _until_rest(self) -> None:
        is_over = False
        while not is_over:
            is_over = await self._guarded(self._harness.settle)
            self._show_news()

    # On a terminal

    async def _talk(self) -> None:
        self._line(
            f"{self._person} talks to {chosen_handler(self._options.handler)}; /? says what you can do here, /quit ends"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_what_is_said)
            self._prompt()
            async for line in terminal_lines():
                text = line.strip()
                if text in QUIT:
                    break
                self._said.clear()
                if text:
                    async with self._lock:
                        await self._take(text)
                        await self._guarded(self._settle_at_once)
                    self._show_news()
                    self._write_record(text)
                self._prompt()
            nursery.cancel_scope.cancel()

    async def _show_what_is_said(self) -> None:
        while True:
            async with self._lock:
                await self._guarded(self._settle_at_once)
            if self._show_news():
                self._prompt()
            house = self._harness.house
            with trio.move_on_after(min(house.seconds_to_timer(), house.seconds_to_retry())):
                await house.has_changed.wait()

    async def _settle_at_once(self) -> None:
        await self._harness.settle(0)

    async def _guarded(self, settle: Callable[[], Awaitable[None]]) -> bool:
        """Awaits it; shows what a handler raised, and returns whether there was nothing of that."""
        try:
            await settle()
        except NoHandler as error:
            self.has_failed = True
            self._tell("note", str(error))
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - it is shown, and the chat goes on
            self._failed(_traceback_of(error))
        else:
            return True
        return False

    def _failed(self, text: str) -> None:
        self.has_failed = True
        self._tell("error", text)

    # What is typed

    async def _take(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands().get(name)
        if command is not None:
            await command(rest.strip())
            return
        match self._answers.read(line):
            case Given(card, answer, files):
                attached = {name: await self._attached(path) for name, path in files.items()}
                values = {"values": {**cast("dict[str, object]", answer["values"]), **attached}} if attached else {}
                await self._chat.post(answer_to_card(card.card_id, {**answer, **values}, is_tool=False))
            case Asks(text):
                self._tell("field", text)
            case Note(text):
                self._tell("note", text)
            case None if line.startswith("~"):
                await self._chat.post(self._chat.text_payload(line[1:].strip(), mention=False))
            case None:
                await self._chat.post(self._chat.text_payload(without_mark(line)))

    def _commands(self) -> dict[str, Callable[[str], Awaitable[None]]]:
        return {
            "/?": self._help,
            "/as": self._as,
            "/group": self._group,
            "/direct": self._direct,
            "/file": self._file,
            "/time": self._time,
            "/kill": self._kill,
            "/state": self._state,
            "/history": self._history,
            "/trace": self._trace,
            "/dead": self._dead,
            "/retry": self._retry,
        }

    async def _help(self, _rest: str) -> None:
        self._tell("note", HELP)

    async def _as(self, name: str) -> None:
        if not name:
            self._tell("note", f"you are {self._person}; /as NAME is somebody else")
            return
        self._enter(self._chat.as_(name))

    async def _group(self, name: str) -> None:
        self._enter(self._chat.group(name or "group"))

    async def _direct(self, _rest: str) -> None:
        self._enter(self._harness.chat(self._person))

    def _enter(self, chat: HarnessChat) -> None:
        if chat.conversation_id != self._chat.conversation_id:
            self._answers = CardAnswers()
        self._chat = chat
        where = f"in the group {chat.conversation_id}" if chat.is_group else "alone with the agent"
        self._tell("note", f"you are {chat.person}, {where}")

    async def _file(self, path: str) -> None:
        """Sends a file, in memory as everything here; a handler reads it in pieces all the same."""
        try:
            content = await (await trio.Path(path).expanduser()).read_bytes()
        except OSError as error:
            self._tell("note", f"{path or '/file PATH'}: {error.strerror}")
            return
        await self._chat.post(self._chat.file_payload(content, name=Path(path).name))

    async def _attached(self, path: Path) -> object:
        """Returns a file as the value of a form's field; its name where it cannot be read, which the agent then says."""
        try:
            content = await trio.Path(path).read_bytes()
        except OSError as error:
            self._tell("note", f"{path}: {error.strerror}")
            return path.name
        return self._chat.attach(content, name=path.name)

    async def _time(self, rest: str) -> None:
        seconds = seconds_in(rest)
        if seconds is None:
            self._tell(
                "note", f"it is {self._chat.now:%Y-%m-%d %H:%M:%S}; /time +10m lets ten minutes pass (s, m, h, d)"
            )
            return

        async def advance() -> None:
            await self._harness.advance(seconds)

        await self._guarded(advance)
        self._show_news()
        self._tell("note", f"it is {self._chat.now:%Y-%m-%d %H:%M:%S}")

    async def _kill(self, _rest: str) -> None:
        await self._harness.kill()
        self._tell("note", "the worker is killed, and another has begun; what ran runs again")

    async def _state(self, _rest: str) -> None:
        try:
            state = self._chat.state
        except LookupError as error:
            self._tell("note", str(error))
            return
        self._tell("note", json.dumps(msgspec.to_builtins(state), ensure_ascii=False, indent=2))

    async def _history(self, _rest: str) -> None:
        turns = await self._chat.history()
        self._tell("note", "\n".join(f"{one.role}: {one.text}" for one in turns) or "nothing is kept of what was said")

    async def _trace(self, _rest: str) -> None:
        trace = self._harness.watch.trace
        lines, self._traced = trace[self._traced :], len(trace)
        logged = [f"{event} {_in_words(values)}".rstrip() for event, values in self._chat.log[-5:]]
        self._tell("note", "\n".join([*lines, *logged]) or "nothing was done since")

    async def _dead(self, _rest: str) -> None:
        self._tell("note", "\n".join(self._chat.dead) or "nothing was given up")

    async def _retry(self, _rest: str) -> None:
        await self._harness.house.retry_dead()

    # What is shown

    @property
    def _person(self) -> str:
        return self._chat.person

    def _show_news(self) -> bool:
        """Shows what was said and not shown yet; returns whether there was something."""
        is_any = False
        for conversation_id, place in self._harness.house.places.items():
            begin = self._shown.get(conversation_id, 0)
            for said in place.heard[begin:]:
                self._shown[conversation_id] = self._shown.get(conversation_id, 0) + 1
                self._show(conversation_id, said)
                is_any = True
        return is_any

    def _show(self, conversation_id: str, said: Said) -> None:
        is_here = conversation_id == self._chat.conversation_id
        whose = "agent" if is_here else f"agent in {conversation_id}"
        if said.kind != "message":
            self._reply(whose, conversation_id, [f"[{said.kind}] {_in_words(said.payload)}"], {"kind": said.kind})
            return
        if said.files:
            names = [f"[file] {one.get('filename')}, {one.get('size')} bytes" for one in said.files]
            lines = [*said.text.splitlines(), *names]
            self._reply(whose, conversation_id, lines, {"kind": "files", "text": said.text, "files": names})
            return
        if said.text:
            if is_here:
                self._answers.shown(None)
            self._reply(whose, conversation_id, said.text.splitlines(), {"kind": "text", "text": said.text})
            return
        cards = self._cards.setdefault(conversation_id, Cards())
        card = cards.read(said.payload)
        if card is None:
            self._reply(
                whose, conversation_id, [f"[{said.payload.get('type')}]"], {"kind": "payload", "payload": said.payload}
            )
            return
        told = {
            "kind": "card",
            "card_id": card.card_id,
            "subtype": card.subtype,
            "title": card.title,
            "revision": card.revision,
            "payload": card.payload,
            "buttons": [{"number": number, "label": one.label} for number, one in enumerate(buttons_of(card), start=1)],
        }
        self._reply(whose, conversation_id, drawn(card), told)
        if is_here and (asks := self._answers.shown(card)) is not None:
            self._tell("field", asks.text)

    def _reply(self, whose: str, conversation_id: str, lines: list[str], told: dict[str, Any]) -> None:
        self._said += lines
        if self._options.as_json:
            self._emit({"from": "agent", "conversation": conversation_id, **told})
            return
        for number, line in enumerate(lines):
            self._line(f"{whose}: {line}" if number == 0 else f"  {line}")

    def _tell(self, kind: str, text: str) -> None:
        """Says something of the console's own."""
        if kind == "field":
            self._said.append(text)
        if self._options.as_json:
            self._emit({"from": "console", "kind": kind, "text": text})
            return
        head = {"error": "the handler failed: ", "field": "field: ", "difference": "different: "}.get(kind, "")
        self._line(f"{head}{text}")

    def _echo(self, line: str) -> None:
        if self._options.as_json:
            self._emit({"from": self._person, "kind": "line", "text": line})
        else:
            self._line(f"{self._person}: {line}")

    def _emit(self, told: Mapping[str, object]) -> None:
        print(json.dumps(told, ensure_ascii=False, default=str), file=self._out, flush=True)

    def _line(self, text: str) -> None:
        print(f"\r{text}" if self._is_interactive else text, file=self._out, flush=True)

    def _prompt(self) -> None:
        if self._is_interactive:
            print(f"\r{self._person}: ", end="", file=self._out, flush=True)

    def _write_record(self, line: str) -> None:
        if self._record is not None:
            lines = [f"> {line}", *([f"< {one}" for one in self._said] or ["<"])]
            self._record.write("".join(f"{self._redaction.of(one)}\n" for one in lines))


def _traceback_of(error: BaseException) -> str:
    """Returns the traceback of what a handler raised, from the owner's own code on."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
    shown = told
    while told is not None:
        ours = [frame.filename.startswith(OURS) for frame in told.stack]
        if not all(ours):
            told.stack = traceback.StackSummary.from_list(told.stack[ours.index(False) :])
        told = told.__cause__ or told.__context__
    return "".join(shown.format()).rstrip() if shown is not None else ""


def _in_words(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
