"""Runs the tools that a model calls in one turn, and notes what each has returned under the turn's name and the call's index (`llm#3/1`).

What needs nobody's word runs at the same time; then comes what a person is asked about, one after the other. A `high` tool begins at most
once for a call. A call that cannot be made is told to the model, which goes on; only what the owner has to mend ends the handler.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias, cast

import msgspec
import trio

from bus.records.records import GROUP, InboundMessage
from host.unreadable import UNREADABLE, UNWRITABLE
from workers.errors import (
    BadCard,
    HandlerError,
    NoAnswer,
    Outcome,
    OutcomeUnknown,
    StateInTool,
    ToolError,
    TooManyWaits,
)
from workers.kept.history import ToolUse, grants_in
from workers.kept.thread import LAST_NOTE_SECONDS, Step, ThreadRun
from workers.kept.within import running_within
from workers.kept.words import Words
from workers.talk.cards import Approval
from workers.talk.chat import Chat
from workers.tools.tool import Arguments, BadArguments, Tool, canonical

CALLS_METRIC: Final = "business_tool_calls"
SERVER_CALLS_METRIC: Final = "business_mcp_calls"
APPROVALS_METRIC: Final = "business_approvals"

OPEN_FOR: Final = timedelta(hours=24)
"""For how long a person may answer."""

MOST_RESULT_BYTES: Final = 16 * 1024
"""Of what the model is told of one call (UTF-8): more fills its context, and a journal of 1 MiB has to hold all of them."""

MOST_OFFERED: Final = 128
"""OpenAI and others refuse a request with more."""

MOST_AT_ONCE: Final = 8
"""Calls of one turn that run at the same time."""

DONE: Final = "Done."
CUT: Final = "\n[The rest is cut off: this was too long.]"
NO_SUCH_TOOL: Final = "There is no tool of this name."
NO_JSON: Final = "The arguments are no JSON object, or too long."
NOT_SHOWN: Final = (
    "This was not run: a person has to approve it, and its arguments are too long to be shown to one. Try it with less."
)
NOBODY: Final = "This was not run: a person has to approve it, and there is nobody here who may."
REFUSED: Final = "This was not run: the person has refused it."
UNANSWERED: Final = "This was not run: nobody has answered whether it may be."
TOO_MANY: Final = "This was not run: a person has to approve it, and too many questions are open."
UNKNOWN: Final = (
    "Nobody knows whether this was done: it was begun, and its end was not heard. Do not try it again by yourself."
)

Ended: TypeAlias = Literal["done", "error", "refused", "unanswered", "unknown"]
Observe: TypeAlias = Callable[..., None]
TellFailed: TypeAlias = Callable[[str, BaseException], None]


def tell_nobody(_name: str, _error: BaseException) -> None:
    """Does nothing: there is no log."""


class Wanted(msgspec.Struct, frozen=True):
    """A call that a model has written. `name`: in the journal; `arguments`: JSON, if it is any."""

    name: str
    tool: str
    arguments: str


class Told(msgspec.Struct, frozen=True):
    """What the model is told of a call, as it stands in the journal.

    `by`: the job in which it ended; `effects`: what it left for that job's end, as msgpack. `approved_by`, `approved_ms`: who has said yes for a day, and
    when; `fingerprint`: to which tool.
    """

    text: str
    ended: Ended
    by: str = ""
    effects: bytes = b""
    approved_by: str = ""
    approved_ms: int = 0
    fingerprint: str = ""

    def __repr__(self) -> str:
        return f"Told(ended={self.ended!r}, …)"


def _told() -> Told:  # type: ignore[empty-body]
    """By what it returns the journal knows what is noted."""


@dataclass(frozen=True)
class _Ready:
    """A call that may be made, if nobody has to be asked."""

    call: Wanted
    tool: Tool
    arguments: Arguments
    asks: bool


@dataclass(eq=False)
class ToolCalls:
    """The calls of one run of a job. `tools`: those that there are now; `tell_failed` hears by which exception which tool has failed."""

    thread: ThreadRun
    chat: Chat
    message: InboundMessage
    observe: Observe
    tools: Callable[[], Sequence[Tool]]
    tell_failed: TellFailed = tell_nobody
    words: Words = field(default_factory=Words)
    _granted: set[str] = field(default_factory=set, init=False)
    _seen: frozenset[str] = field(default=frozenset(), init=False)

    async def work(self, calls: Sequence[Wanted], *, may_ride: bool, seen: frozenset[str]) -> list[Told]:
        """Makes the calls of one turn; returns what the model is told of each, in their order.

        `may_ride`: what was approved for a day counts: in this thread the model has seen nothing but what this person wrote. `seen`: the tools
        whose output it was told of what was said before; what another tool returned may want to have this one called.
        """
        self._granted.clear()
        self._seen = seen
        tools = {tool.name: tool for tool in self.offered()}
        may_ride = may_ride and self.message.conversation_type != GROUP
        planned = {call.name: await self._plan(call, tools.get(call.tool), may_ride) for call in calls}
        free = [one for one in planned.values() if isinstance(one, _Ready) and not one.asks]
        found = {name: one for name, one in planned.items() if isinstance(one, Told)}
        before = self.thread.keeping.changed_state()
        found.update(await self._run_all(free))
        for call in calls:
            ready = planned[call.name]
            if isinstance(ready, _Ready) and ready.asks:
                found[call.name] = await self._run_if_approved(ready, may_ride)
            else:
                self.chat.has_asked(_key_of(call.name))
            if found[call.name].ended == "unknown":
                await self.chat.reply(self.words.tells_of(call.tool))
        if self.thread.keeping.changed_state() != before:
            raise StateInTool
        return [found[call.name] for call in calls]

    def only(self, names: frozenset[str] | None) -> "ToolCalls":
        """Returns the calls of those tools alone that have these names; None for all."""
        if names is None:
            return self
        return replace(self, tools=lambda: [tool for tool in self.tools() if tool.name in names])

    def offered(self) -> list[Tool]:
        """Returns the tools that there are now, of several with one name the first; no more than endpoints take."""
        return list({tool.name: tool for tool in reversed(self.tools())}.values())[::-1][:MOST_OFFERED]

    async def _plan(self, call: Wanted, tool: Tool | None, may_ride: bool) -> Told | _Ready:
        """Returns what is known of a call: what an earlier run has noted, why it cannot be made, or that it may be."""
        entry = self.thread.entry(call.name)
        if entry is not None and entry.kind != "begun":
            return self._noted(call)
        if entry is not None:
            return await self._note(call, Told(UNKNOWN, "unknown"))
        if tool is None:
            return await self._note(call, Told(NO_SUCH_TOOL, "error"), tool="")
        try:
            arguments = tool.check(_parsed(call.arguments))
        except BadArguments as error:
            return await self._note(call, Told(_cut(str(error)), "error"))
        return _Ready(call, tool, arguments, await self._has_to_ask(tool, may_ride))

    def _noted(self, call: Wanted) -> Told:
        told = cast("Told", Step(call.name, self.thread.entry(call.name)).result(_told))
        if told.by == self.thread.job.job_id:  # an earlier job of the thread has written what it left with its end
            for effect in msgspec.msgpack.decode(told.effects) if told.effects else ():
                self.thread.effects.add(*effect)
        if told.approved_by:
            self._granted.add(told.fingerprint)
        return told

    async def _note(self, call: Wanted, told: Told, *, tool: str | None = None, once: bool = False) -> Told:
        told = msgspec.structs.replace(told, by=self.thread.job.job_id)
        step = Step(call.name, None)
        with trio.CancelScope(shield=True) as noting:
            if not once:
                noting.deadline = trio.current_time() + LAST_NOTE_SECONDS
            await self.thread.keep(step, _told, told, once=once)
        if noting.cancelled_caught:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self.thread.keep(step, _told, told, once=once)
        self.observe(CALLS_METRIC, 1, tool=call.tool if tool is None else tool, outcome=told.ended)
        return told

    # Who is asked

    async def _has_to_ask(self, tool: Tool, may_ride: bool) -> bool:
        if tool.sensitivity != "medium":
            return tool.sensitivity == "high"
        return not (self._may_ride(tool, may_ride) and await self._is_granted(tool))

    def _may_ride(self, tool: Tool, may_ride: bool) -> bool:
        return may_ride and tool.sensitivity == "medium" and self._seen <= {tool.name}

    async def _is_granted(self, tool: Tool) -> bool:
        """Returns whether this person has approved this very tool here within the last day."""
        keeping = self.thread.keeping
        if not keeping.has_history:
            return False
        granted = grants_in(await keeping.history(), int(time.time() * 1000))
        return self.message.sender_id != "" and (self.message.sender_id, tool.fingerprint) in granted

    async def _run_if_approved(self, ready: _Ready, may_ride: bool) -> Told:
        call, tool = ready.call, ready.tool
        self.chat.has_asked(_key_of(call.name))  # also of what this tool was before it changed
        covers = self._may_ride(tool, may_ride)
        if covers and tool.fingerprint in self._granted:
            return await self._run(ready)
        told = await self._ask(ready, covers)
        if told is not None:
            return await self._note(call, told)
        if not covers:
            return await self._run(ready)
        self._granted.add(tool.fingerprint)
        return await self._run(
            ready,
            approved_by=self.message.sender_id,
            approved_ms=int(time.time() * 1000),
            fingerprint=tool.fingerprint,
        )

    async def _ask(self, ready: _Ready, covers: bool) -> Told | None:
        """Has a person asked; returns why the call is not made, None if it may be. The question's name is bound to all that would be run."""
        call, tool = ready.call, ready.tool
        who = tool.approvers or ((self.message.sender_id,) if self.message.sender_id else ())
        if not who:
            return Told(NOBODY, "refused")
        try:
            card = approval_of(tool, ready.arguments, self.words, covers=covers)
        except BadCard:
            return Told(NOT_SHOWN, "error")
        shown = hashlib.sha256(canonical([tool.fingerprint, card.question_hash("")])).hexdigest()[:24]
        key = f"{_key_of(call.name)}{shown}"
        is_new = not self.chat.was_asked(key)
        if is_new:
            self.observe(APPROVALS_METRIC, 1, outcome="asked")
        try:
            is_approved = await self.chat.ask(card, timeout=OPEN_FOR, key=key, who=who)
        except NoAnswer as none:
            self.observe(APPROVALS_METRIC, 1, outcome="unanswered" if none.why == "timeout" else "refused")
            return Told(UNANSWERED, "unanswered") if none.why == "timeout" else Told(REFUSED, "refused")
        except TooManyWaits:
            return Told(TOO_MANY, "error")
        self.observe(APPROVALS_METRIC, 1, outcome="granted" if is_approved else "refused")
        return None if is_approved else Told(REFUSED, "refused")

    # What runs

    async def _run_all(self, free: Sequence[_Ready]) -> dict[str, Told]:
        found, failures, limit = dict[str, Told](), list[Exception](), trio.CapacityLimiter(MOST_AT_ONCE)

        async def run(ready: _Ready) -> None:
            async with limit:
                try:
                    found[ready.call.name] = await self._run(ready)
                except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery and its groups
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            for ready in free:
                nursery.start_soon(run, ready)
        if failures:
            raise failures[0]
        return found

    async def _run(self, ready: _Ready, *, approved_by: str = "", approved_ms: int = 0, fingerprint: str = "") -> Told:
        run = self._run_once if ready.tool.sensitivity == "high" else self._run_anyhow
        approved = Told("", "done", approved_by=approved_by, approved_ms=approved_ms, fingerprint=fingerprint)
        return await run(ready, approved)

    async def _run_anyhow(self, ready: _Ready, approved: Told) -> Told:
        """Runs a tool, again where the worker of an earlier run has died meanwhile."""
        await self.thread.until_a_step_may_begin()
        with self.thread.stepping():
            return await self._note(ready.call, await self._outcome(ready, approved))

    async def _run_once(self, ready: _Ready, approved: Told) -> Told:
        """Runs a tool unless it was begun before: that it begins is noted. No interruption and no drain cancels it."""
        await self.thread.until_a_step_may_begin()
        try:
            await self.thread.note_begun(Step(ready.call.name, None))
        except OutcomeUnknown:
            return await self._note(ready.call, Told(UNKNOWN, "unknown"))
        try:
            with trio.CancelScope(shield=True), self.thread.stepping():
                told = await self._note(ready.call, await self._outcome(ready, approved), once=True)
        finally:
            self.thread.has_ended()
        return told

    async def _outcome(self, ready: _Ready, approved: Told) -> Told:
        tool, is_once = ready.tool, ready.tool.sensitivity == "high"
        text = ""
        ended: Ended = "done"
        with running_within(ready.call.name) as inside:
            try:
                with trio.move_on_after(tool.timeout_seconds) as patience:
                    text = text_of(await tool.run(ready.arguments))
                if patience.cancelled_caught:
                    text, ended = f"This took longer than {tool.timeout_seconds:g} s, and was ended.", "error"
                    if is_once:
                        text, ended = UNKNOWN, "unknown"
            except ToolError as error:
                text, ended = str(error) or "This has failed.", "error"
            except OutcomeUnknown:
                text, ended = UNKNOWN, "unknown"
            except (HandlerError, Outcome):
                raise
            except Exception as error:  # noqa: BLE001 - of the owner's code; the model goes on
                self.tell_failed(tool.name, error)
                text, ended = f"This has failed: {type(error).__name__}.", "error"
        if tool.server:
            self.observe(SERVER_CALLS_METRIC, 1, server=tool.server.partition(" ")[0], outcome=ended)
        effects = msgspec.msgpack.encode(inside.effects) if inside.effects else b""
        return msgspec.structs.replace(approved, text=_cut(text), ended=ended, effects=effects)


class ToolApproval(Approval, frozen=True):
    """Whether a tool may be run. What was said has the call itself, and what came of it."""

    is_said = False


def approval_of(tool: Tool, arguments: Arguments, words: Words, *, covers: bool) -> Approval:
    """Returns the card that asks whether a tool may be run: all that is run stands in it as canonical JSON. Raises BadCard.

    `covers`: yes counts for a day.
    """
    shown: dict[str, object] = {"tool": tool.title or tool.name, "arguments": dict(arguments)}
    shown["version"] = tool.fingerprint[:16]
    if tool.server:
        shown["server"] = tool.server
    return ToolApproval(
        words.asks_for(tool.name),
        details=words.counts_for_a_day if covers else None,
        arguments=shown,
        severity=tool.sensitivity,
    )


def used(tool: str, arguments: str, told: Told) -> ToolUse:
    """Returns a call and what came of it as it is kept of what was said."""
    return ToolUse(
        name=tool,
        arguments=arguments,
        result=told.text,
        approved_by=told.approved_by,
        approved_ms=told.approved_ms,
        fingerprint=told.fingerprint,
    )


def text_of(value: object) -> str:
    """Returns what the model is told of a value that a tool has returned. Raises ToolError for one that JSON does not have."""
    if value is None:
        return DONE
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except UNWRITABLE:
        raise ToolError("This was done, and what it returned cannot be told.") from None


def _parsed(arguments: str) -> Arguments:
    try:
        return msgspec.json.decode(arguments, type=dict[str, object])
    except UNREADABLE:
        raise BadArguments(NO_JSON) from None


def _cut(text: str) -> str:
    whole = text.encode(errors="replace")
    if len(whole) <= MOST_RESULT_BYTES:
        return whole.decode()
    return whole[: MOST_RESULT_BYTES - len(CUT)].decode(errors="ignore") + CUT


def _key_of(call: str) -> str:
    """Returns what the keys of a call's questions begin with."""
    return f"tool-{hashlib.sha256(call.encode()).hexdigest()[:12]}-"
