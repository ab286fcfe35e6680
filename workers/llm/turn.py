"""One turn of a model in a thread: asked once, noted before it counts, and found again by every later run.

A turn that fails because the endpoint is busy, cannot be reached or breaks off gives the job back; it comes again after a while. Only when
that has an end the handler hears of it, by an LLMError.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import trio

from workers.errors import LLMBusy, LLMCut, LLMError, LLMTooLong, LLMUnreachable, WaitOutside
from workers.kept.thread import LAST_NOTE_SECONDS, Step, ThreadRun
from workers.llm.calls import Call
from workers.llm.endpoint import NOTHING_OFFERED, Chat, ModelEndpoint, Offer, Write
from workers.llm.memory import tools_in
from workers.llm.reading import Completion, Usage, not_empty
from workers.llm.tokens import TokenCount

FIRST_TOKEN_METRIC: Final = "business_llm_first_token_seconds"  # noqa: S105  # a name
TOKENS_METRIC: Final = "business_llm_tokens"
DURATION_METRIC: Final = "business_llm_duration_ms"

STEP: Final = "llm"
"""The name of a turn in the journal: `llm#1`, `llm#2`, …"""

MOST_PART_CHARACTERS: Final = 60_000
"""Of a text in one entry of the journal, which has 256 KiB: a longer one takes several."""

AGAIN_AFTER_SECONDS: Final = (2.0, 8.0, 20.0)
"""An endpoint that fails is asked three times more, within half a minute. By then a passing fault is over."""

BUSY_SECONDS: Final = 5.0
LEAST_BUSY_SECONDS: Final = 1.0
MOST_OF_LEAST_SECONDS: Final = 30.0
"""An endpoint that says a time and is busy again each time is asked ever less often: after 1, 2, 4, … 30 s at least, whatever it says."""

TOLD_AFTER_SECONDS: Final = 20.0
"""A person who will have waited for so long before the endpoint is asked again hears that it is busy."""

LONGEST_BUSY_SECONDS: Final = 60.0
"""The wait for a busy endpoint that does not say for how long, the first time, then twice as long, and at most."""

Observe = Callable[..., None]


class Tries(msgspec.Struct, frozen=True):
    """How often a turn was asked in vain. `waited_ms`: the pauses that a busy endpoint was given so far.

    They are added up, since no clock tells how long that was: each try may be another host's, and a clock may be set meanwhile.
    """

    waited_ms: int = 0
    busy: int = 0
    failures: int = 0


class Part(msgspec.Struct, frozen=True):
    """What is noted of a turn; `text` is its beginning, and `more` says how many entries have the rest.

    `has_calls`: one more has the tools that it calls. `saw`: the tools whose output stood in what the model was told.
    """

    text: str
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    more: int = 0
    has_calls: bool = False
    saw: list[str] = []


@dataclass(frozen=True)
class Taken:
    """A turn that was taken: its name in the journal, such as `llm#3`, and the answer. `saw`: as of Part."""

    name: str
    completion: Completion
    saw: frozenset[str] = frozenset()


def _part() -> Part:  # type: ignore[empty-body]
    """By what it returns the journal knows what is noted."""


def _text() -> str:  # type: ignore[empty-body]
    """As `_part`."""


def _calls() -> list[Call]:  # type: ignore[empty-body]
    """As `_part`."""


def _tries() -> Tries:  # type: ignore[empty-body]
    """As `_part`."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is asked. `wait_seconds`: for how long a message waits for an endpoint that is busy."""

    endpoint: ModelEndpoint
    name: str
    tokens: TokenCount
    wait_seconds: float


@dataclass(frozen=True)
class ModelTurns:
    """The turns of one run. `tell_busy` is called with the name of a turn that waits for long for a busy endpoint, each time that it was asked."""

    thread: ThreadRun
    observe: Observe
    tell_busy: Callable[[str], Awaitable[None]]

    async def take(
        self,
        model: Model,
        chats: Callable[[], Awaitable[Sequence[Chat]]],
        write: Write,
        offer: Offer = NOTHING_OFFERED,
    ) -> Taken:
        """Takes the next turn, whose answer is not empty: what an earlier run has noted, else the model's.

        `chats` is called if the model is asked; it returns the messages, and what is tried in their stead where they are too long. Raises
        LLMError, WaitOutside, and what `write` raises.
        """
        step = self.thread.begin(STEP, once=False)
        if step.is_done:
            return self._noted(step)
        with self.thread.stepping():
            try:
                told = await chats()
                completion = not_empty(await self._ask_what_fits(model, told, write, offer))
            except (LLMBusy, LLMCut, LLMUnreachable) as error:
                await self._come_again(step, model, error)
                raise
            taken = Taken(step.name, completion, frozenset(name for chat in told for name in tools_in(chat)))
            with trio.move_on_after(LAST_NOTE_SECONDS, shield=True):
                return await self._note(step, taken)
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._note(step, taken)

    async def _ask_what_fits(self, model: Model, chats: Sequence[Chat], write: Write, offer: Offer) -> Completion:
        for chat in chats[:-1]:
            try:
                return await self._ask(model, chat, write, offer)
            except LLMTooLong:
                continue
        return await self._ask(model, chats[-1], write, offer)

    async def _ask(self, model: Model, chat: Chat, write: Write, offer: Offer) -> Completion:
        started, written = trio.current_time(), list[str]()

        async def write_and_count(piece: str) -> None:
            if not written:
                self.observe(FIRST_TOKEN_METRIC, trio.current_time() - started, model=model.name)
            written.append(piece)
            await write(piece)

        try:
            completion = await model.endpoint.ask(model.name, chat, write_and_count, offer)
        except BaseException:
            if written:
                await self._pay_for(model.tokens.counted(chat, Completion("".join(written))))
            raise
        finally:
            self.observe(DURATION_METRIC, (trio.current_time() - started) * 1000, model=model.name)
        usage = model.tokens.counted(chat, completion)
        self.observe(TOKENS_METRIC, usage.prompt_tokens or 0, model=model.name, kind="prompt")
        self.observe(TOKENS_METRIC, usage.completion_tokens or 0, model=model.name, kind="completion")
        return msgspec.structs.replace(completion, usage=usage)

    async def _pay_for(self, usage: Usage) -> None:
        """Has what was written of an answer paid for that did not come to its end: it broke off, or nobody waits for it any more."""
        with trio.move_on_after(LAST_NOTE_SECONDS, shield=True):
            await self.thread.charge(_total(usage))

    async def _come_again(self, step: Step, model: Model, error: LLMError) -> None:
        """Raises WaitOutside if the turn is to be asked again after a while."""
        name = f"wait:{step.name}"
        entry = self.thread.entry(name)
        tries = Tries() if entry is None else cast("Tries", Step(name, entry).result(_tries))
        found = _after_busy(tries, model, error) if isinstance(error, LLMBusy) else _after_failure(tries)
        if found is None:
            return
        after, tries = found
        after *= random.uniform(1.0, 1.2)  # noqa: S311 - spreads load, guards nothing
        if isinstance(error, LLMBusy):
            tries = msgspec.structs.replace(tries, waited_ms=tries.waited_ms + round(after * 1000))
        await self.thread.keep(Step(name, None), _tries, tries, once=False)
        if isinstance(error, LLMBusy) and tries.waited_ms >= TOLD_AFTER_SECONDS * 1000:
            await self.tell_busy(step.name)
        raise WaitOutside(after) from None

    async def _note(self, step: Step, taken: Taken) -> Taken:
        completion = taken.completion
        head, *rest = _cut(completion.text)
        for number, text in enumerate(rest, start=2):
            await self.thread.keep(Step(f"{step.name}.{number}", None), _text, text, once=False)
        if completion.calls:
            await self.thread.keep(Step(_calls_of(step), None), _calls, list(completion.calls), once=False)
        usage = completion.usage
        part = Part(
            head,
            completion.finish,
            usage.prompt_tokens,
            usage.completion_tokens,
            len(rest),
            has_calls=bool(completion.calls),
            saw=sorted(taken.saw),
        )
        await self.thread.keep(step, _part, part, once=False, tokens=_total(usage))
        return taken

    def _noted(self, step: Step) -> Taken:
        part = cast("Part", step.result(_part))
        names = [f"{step.name}.{number}" for number in range(2, part.more + 2)]
        rest = [cast("str", Step(name, self.thread.entry(name)).result(_text)) for name in names]
        named = _calls_of(step)
        calls = cast("list[Call]", Step(named, self.thread.entry(named)).result(_calls)) if part.has_calls else []
        usage = Usage(part.prompt_tokens, part.completion_tokens)
        completion = Completion("".join([part.text, *rest]), part.finish, usage, tuple(calls))
        return Taken(step.name, completion, frozenset(part.saw))


def _calls_of(step: Step) -> str:
    """Returns the name of the entry that has the tools which a turn calls."""
    return f"{step.name}.calls"


def _total(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)


def _after_busy(tries: Tries, model: Model, error: LLMBusy) -> tuple[float, Tries] | None:
    """Returns after how long a busy endpoint is asked again, and the tries by then; None if it was waited for long enough."""
    left = model.wait_seconds - tries.waited_ms / 1000
    if left <= 0:
        return None
    if error.retry_after_seconds is None:
        wished = min(BUSY_SECONDS * 2.0**tries.busy, LONGEST_BUSY_SECONDS)
    else:
        wished = max(error.retry_after_seconds, min(LEAST_BUSY_SECONDS * 2.0**tries.busy, MOST_OF_LEAST_SECONDS))
    after = min(wished, max(left, 1.0))
    return after, Tries(tries.waited_ms, min(tries.busy + 1, 16), tries.failures)


def _after_failure(tries: Tries) -> tuple[float, Tries] | None:
    if tries.failures >= len(AGAIN_AFTER_SECONDS):
        return None
    return AGAIN_AFTER_SECONDS[tries.failures], Tries(tries.waited_ms, tries.busy, tries.failures + 1)


def _cut(text: str) -> list[str]:
    return [text[at : at + MOST_PART_CHARACTERS] for at in range(0, len(text), MOST_PART_CHARACTERS)] or [""]
