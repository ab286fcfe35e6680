"""What a handler asks for as `llm: LLM`: the agent's language model, which knows the conversation.

`Agent(llm=LLM(…))` has the settings. In a worker one endpoint is opened for all jobs, and each run is given the LLM again, bound to it.
"""

import copy
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import trio

from bus.records.records import GROUP, InboundMessage
from bus.settings import llm as settings
from bus.settings.llm import LLMSettings, llm_settings_of
from bus.settings.reader import Malformed, Parser, Setting, SettingsError, SettingsReader
from workers.errors import BadHandler, BadReply, CannotStart, ChatClosed, LLMCut, LLMMisfit
from workers.files.inbound import InboundFile
from workers.kept.history import turn_of
from workers.kept.thread import ThreadRun
from workers.kept.words import Words
from workers.llm.endpoint import Chat as Messages
from workers.llm.endpoint import EndpointAddress, ModelEndpoint
from workers.llm.finish import FILTER, LENGTH
from workers.llm.memory import Spoken, alternating, newer_half, newest_within, said_in, without_tools
from workers.llm.pictures import check_taken, with_pictures
from workers.llm.reading import Completion
from workers.llm.rounds import Chats, Rounds
from workers.llm.tokens import TokenCount
from workers.llm.turn import Model, ModelTurns, Observe
from workers.llm.typed import Misfit, asked_for, value_in
from workers.talk.chat import Chat
from workers.talk.payloads import Mention, Quote
from workers.tools.calls import ToolCalls

Value = TypeVar("Value")

DEFAULT_SYSTEM_PROMPT: Final = "You are a helpful agent in a chat. Answer briefly, in the language of the message."
HUMAN: Final = "human"
NO_KEY: Final = "none"
"""Local endpoints need no key, but the client insists on one."""

RESET: Final = "reset"
STOP: Final = "stop"
HELP: Final = "help"
TIMES_ASKED: Final = 2
"""For a value: a model that does not give it when it was told why does not give it."""

AGAIN: Final = "That does not fit: {}. Answer again, with JSON alone."
ENDED_EARLY: Final = (LENGTH, FILTER)
"""The finish reasons of an answer that ended before its time."""


class LLM:
    """A language model behind an OpenAI-compatible endpoint.

    `system`: the system prompt, or the Path of a file with it. `model`, `base_url`, `api_key`: else OPENAI_BASE_URL, OPENAI_API_KEY and
    HASHEE_LLM_MODEL say. `history_tokens`: so much of what was said before the model is told at most (HASHEE_LLM_HISTORY_TOKENS).
    `options`: what every request has besides, such as `{"temperature": 0.2}`. `commands`: those that the agent has by itself, unless a handler
    of its own takes them; `help`: what /help says. Raises BadHandler.
    """

    def __init__(
        self,
        system: str | Path | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        history_tokens: int | None = None,
        options: Mapping[str, object] | None = None,
        commands: Sequence[str] = (RESET, STOP, HELP),
        help: str | None = None,  # noqa: A002 - what /help says
    ) -> None:
        self._system = system
        self._model = _checked("model", settings.MODEL, settings.model_name, model)
        self._base_url = _checked("base_url", settings.BASE_URL, settings.base_url, base_url)
        self._api_key = _checked("api_key", settings.API_KEY, settings.api_key, api_key)
        self._history_tokens = history_tokens
        self._options = dict(options or {})
        self._run: ModelRun | None = None
        self.commands = tuple(commands)
        self.help = help

    def __repr__(self) -> str:
        return "LLM(…)"

    @asynccontextmanager
    async def opened(
        self,
        environ: Mapping[str, str] = os.environ,
        endpoint: ModelEndpoint | None = None,
        words: Words | None = None,
    ) -> AsyncIterator["OpenLLM"]:
        """Opens the endpoint for all jobs of a worker, and closes it. `endpoint`: a test's instead, of which no setting says anything; `words`: the
        agent's. Raises CannotStart.
        """
        words = words or Words()
        if endpoint is not None:
            yield OpenLLM(self, self._settings({settings.MODEL.name: "scripted"}), endpoint, TokenCount(), words)
            return
        found = self._settings(environ)
        place = EndpointAddress(base_url=found.base_url, api_key=found.api_key or NO_KEY, options=self._options)
        endpoint = ModelEndpoint(place)
        try:
            yield OpenLLM(self, found, endpoint, TokenCount(), words)
        finally:
            await endpoint.aclose()

    async def reply(
        self,
        prompt: str | None = None,
        *,
        system: str | None = None,
        model: str | None = None,
        markdown: bool = True,
        quote: Quote = False,
        mention: Mention = (),
        key: str | None = None,
        tools: bool | Sequence[str] = True,
        images: Sequence[InboundFile] = (),
    ) -> str:
        """Answers the message, knowing what was said before; people see the answer grow. Returns it.

        `prompt`: what to answer instead of the message. `system`, `model`: for this answer alone. `tools`: whether the model may call those of the
        agent, or the names of those that it may; what it says before it calls some is a reply of its own. `images`: pictures that the model is
        shown, of 8 MiB in all. The rest as in `chat.reply`. Raises LLMError when the model cannot be asked, LLMNoPictures, FileError, BadReply in a
        job that no message began without a `prompt`.
        """
        run = self._running()
        present = run.present(prompt)
        calls = run.calls_of(tools)
        if images:
            check_taken(run.opened.settings.pictures)
        rounds = run.rounds(
            model,
            lambda: run.remembered(
                system, present, has_tools=calls is not None and bool(calls.offered()), images=images
            ),
            calls=calls,
            may_ride=prompt is None and not images and run.is_words_alone,
            is_kept=True,
        )
        number, goes_on, text, words = 0, True, "", run.opened.words
        while goes_on:
            number += 1
            named = key if key is None or number == 1 else f"{key}.{number}"
            async with run.chat.stream(markdown=markdown, quote=quote, mention=mention, key=named) as stream:
                taken = await rounds.take(stream.write)
                text = whole_answer(taken.completion, words) or ("" if rounds.may_call else words.no_words)
                stream.replace(text)
            goes_on = await rounds.work(taken)
        return text

    @overload
    async def complete(
        self, prompt: str, *, system: str | None = None, model: str | None = None, tools: bool | Sequence[str] = False
    ) -> str: ...

    @overload
    async def complete(
        self,
        prompt: str,
        type: type[Value],
        *,
        system: str | None = None,
        model: str | None = None,
        tools: bool | Sequence[str] = False,
    ) -> Value: ...

    @overload
    async def complete(
        self,
        prompt: str,
        type: Any,
        *,
        system: str | None = None,
        model: str | None = None,
        tools: bool | Sequence[str] = False,
    ) -> Any: ...

    async def complete(
        self,
        prompt: str,
        type: Any = str,  # noqa: A002 - as msgspec calls it
        *,
        system: str | None = None,
        model: str | None = None,
        tools: bool | Sequence[str] = False,
    ) -> Any:
        """Returns the model's answer to a prompt alone; nobody sees it, and nothing that was said is told to the model.

        `type`: what the answer is to be, such as a struct, a list, a number, a Literal: it is asked for as JSON, and once more with the reason
        if it does not fit. `tools`: as in `reply`; none unless they are asked for, since a prompt may hold what a stranger wrote. Raises
        LLMMisfit, LLMError.
        """
        run = self._running()
        calls = run.calls_of(tools)
        asked = prompt if type is str else asked_for(prompt, type)
        chat = [*([Spoken("system", system)] if system else []), Spoken("user", asked)]
        for _ in range(TIMES_ASKED):
            rounds = run.rounds(model, partial(_as_it_is, messages_of(chat)), calls=calls)
            taken = await rounds.take(_to_nobody)
            while await rounds.work(taken):
                taken = await rounds.take(_to_nobody)
            completion = taken.completion
            if completion.finish in ENDED_EARLY:
                raise LLMCut("the model's answer ended before its time, by its limit or the endpoint's filter")
            if type is str:
                return completion.text
            try:
                return value_in(completion.text, type)
            except Misfit as misfit:
                chat = [*chat, Spoken("assistant", completion.text), Spoken("user", AGAIN.format(misfit))]
        raise LLMMisfit(getattr(type, "__name__", str(type)))

    @asynccontextmanager
    async def stream(
        self, messages: Messages, *, model: str | None = None, tools: bool | Sequence[str] = False
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Asks the model with messages of the handler's own: `async with llm.stream([…]) as pieces: async for piece in pieces: …`.

        A later run gets the whole answer in one piece. `tools`: as in `complete`. Raises LLMError.
        """
        run = self._running()
        rounds = run.rounds(model, partial(_as_it_is, messages), calls=run.calls_of(tools))
        sender, receiver = trio.open_memory_channel[str](math.inf)
        failures: list[Exception] = []
        heard = 0

        async def write(piece: str) -> None:
            nonlocal heard
            heard += len(piece)
            await sender.send(piece)

        async def ask() -> None:
            nonlocal heard
            with sender:
                try:
                    goes_on = True
                    while goes_on:
                        heard = 0
                        taken = await rounds.take(write)
                        await sender.send(taken.completion.text[heard:])
                        goes_on = await rounds.work(taken)
                except Exception as error:  # noqa: BLE001 - raised again where the pieces are read
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            try:
                yield _pieces(receiver, failures)
            except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery and its groups
                failures.insert(0, error)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]

    def bound(self, run: "ModelRun") -> "LLM":
        """Returns it for a run."""
        found = copy.copy(self)
        found._run = run
        return found

    def _running(self) -> "ModelRun":
        if self._run is None:
            raise ChatClosed("this LLM is the agent's: a handler asks for its own with the parameter `llm: LLM`")
        return self._run

    def _settings(self, environ: Mapping[str, str]) -> LLMSettings:
        reader = SettingsReader(environ)
        found = llm_settings_of(reader)
        try:
            reader.finish()
        except SettingsError as error:
            raise CannotStart(str(error)) from None
        return LLMSettings(
            base_url=self._base_url or found.base_url,
            api_key=self._api_key or found.api_key,
            model=self._model or found.model,
            system_prompt=self._prompt(found.system_prompt),
            history_tokens=found.history_tokens if self._history_tokens is None else self._history_tokens,
            wait_seconds=found.wait_seconds,
            pictures=found.pictures,
        )

    def _prompt(self, of_settings: str | None) -> str:
        if isinstance(self._system, Path):
            try:
                return self._system.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise CannotStart("LLM(system=Path(…)): expected the path of a text file in UTF-8") from None
        return self._system or of_settings or DEFAULT_SYSTEM_PROMPT


@dataclass(frozen=True)
class OpenLLM:
    """An LLM in a worker."""

    llm: LLM
    settings: LLMSettings
    endpoint: ModelEndpoint
    tokens: TokenCount
    words: Words

    def for_run(
        self, chat: Chat, thread: ThreadRun, messages: Sequence[InboundMessage], observe: Observe, calls: ToolCalls
    ) -> LLM:
        """Returns the LLM that a handler is given. `calls`: what runs the tools that it calls."""
        return self.llm.bound(
            ModelRun(
                self,
                chat,
                thread,
                tuple(messages),
                self._turns(chat, thread, messages, observe),
                calls,
            )
        )

    def _turns(self, chat: Chat, thread: ThreadRun, messages: Sequence[InboundMessage], observe: Observe) -> ModelTurns:
        """Returns the turns of a run. A person who waits for an answer is told once that the endpoint is busy; another agent hears nothing, or it
        would answer that, and nobody waits for a reminder.
        """
        waits = thread.job.kind == "message" and all(message.sender_type == HUMAN for message in messages)

        async def tell_busy(turn: str) -> None:
            if waits and self.words.busy is not None:
                await chat.say_aside(self.words.busy, f"busy:{turn}")

        return ModelTurns(thread, observe, tell_busy)


@dataclass(frozen=True)
class ModelRun:
    """The LLM of one run."""

    opened: OpenLLM
    chat: Chat
    thread: ThreadRun
    messages: tuple[InboundMessage, ...]
    turns: ModelTurns
    tools: ToolCalls

    def present(self, prompt: str | None) -> list[Spoken]:
        """Returns what is to be answered. Raises BadReply."""
        if prompt is not None:
            return [Spoken("user", prompt)]
        if self.thread.job.kind != "message" and self.messages[-1].message_id == self.thread.job.job_id:
            raise BadReply("no message began this job: say what is to be answered, llm.reply('…')")
        said = said_in((turn_of(message, 0) for message in self.messages), with_names=self._is_group)
        if not said:
            raise BadReply("the message has no words: say what is to be answered, llm.reply('…')")
        return said

    @property
    def is_words_alone(self) -> bool:
        """Whether the messages are texts of one person, with nothing beside them that somebody else may have written."""
        return all(
            message.payload.get("type") == "text"
            and not message.payload.get("attachments")
            and message.sender_type == HUMAN
            and message.sender_id == self.messages[-1].sender_id
            for message in self.messages
        )

    async def remembered(
        self, system: str | None, present: Sequence[Spoken], *, has_tools: bool, images: Sequence[InboundFile] = ()
    ) -> list[Messages]:
        """Returns the conversation as the model is told it, and as it is told it if that is too long. `has_tools`: it may call some."""
        found, tokens = self.opened.settings, self.opened.tokens
        history = await self.thread.keeping.history()
        said = said_in(history, with_names=self._is_group)
        before = newest_within(said if has_tools else without_tools(said), found.history_tokens, tokens)
        prompt = system if system is not None else found.system_prompt
        first = [Spoken("system", prompt)] if prompt else []
        chats = [
            messages_of([*first, *alternating([*some, *present])])
            for some in ([before, newer_half(before)] if before else [before])
        ]
        shown = (await with_pictures(chats[0][-1:], images))[-1]
        return [[*chat[:-1], shown] for chat in chats]

    def calls_of(self, tools: bool | Sequence[str]) -> ToolCalls | None:
        """Returns what runs the tools that may be called; None if none may be."""
        if tools is False:
            return None
        names = None if tools is True else frozenset([tools] if isinstance(tools, str) else tools)
        return self.tools.only(names)

    def rounds(
        self,
        model: str | None,
        chats: Chats,
        *,
        calls: ToolCalls | None,
        may_ride: bool = False,
        is_kept: bool = False,
    ) -> Rounds:
        """Returns an answer that is to be taken: see Rounds."""
        opened = self.opened
        asked = Model(
            endpoint=opened.endpoint,
            name=model or opened.settings.model,
            tokens=opened.tokens,
            wait_seconds=opened.settings.wait_seconds,
        )
        return Rounds(self.turns, asked, chats, calls, may_ride, is_kept)

    @property
    def _is_group(self) -> bool:
        return self.thread.job.message.conversation_type == GROUP


def whole_answer(completion: Completion, words: Words) -> str:
    """Returns an answer as people see it; one that ended before its time says so."""
    notice = {LENGTH: words.by_limit, FILTER: words.by_filter}.get(completion.finish, "")
    return "\n\n".join(part for part in (completion.text.rstrip(), notice) if part)


def messages_of(chat: Sequence[Spoken]) -> Messages:
    """Returns a conversation as endpoints take it."""
    return [message for number, said in enumerate(chat) for message in said.as_messages(number)]


async def _as_it_is(messages: Messages) -> Sequence[Messages]:
    """Returns a conversation that has none in its stead."""
    return [messages]


async def _to_nobody(_piece: str) -> None:
    """Nobody sees an answer grow that is made into something else."""


async def _pieces(receiver: trio.MemoryReceiveChannel[str], failures: list[Exception]) -> AsyncIterator[str]:
    """Yields what comes; raises what the model could not."""
    async for piece in receiver:
        if piece:
            yield piece
    if failures:
        raise failures[0]


def _checked(name: str, setting: Setting, parse: Parser[Value], text: Any) -> Value | None:
    if text is None:
        return None
    try:
        return parse(text)
    except (Malformed, TypeError, AttributeError):
        raise BadHandler(f"LLM({name}=…): expected {setting.expectation}") from None
