"""What was said in a conversation before the present message, by both sides: `history: History`, or `await chat.history(n)`.

It is kept only by an agent one of whose handlers asks for it. A turn is written with the end of the job that it belongs to, so that no run
sees the turns of its own thread, and a second run sees what the first one saw.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, overload

import msgspec

from bus.records.records import InboundMessage, Payload, Reply


def _packed(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


MOST_TURNS = 200
"""That a handler is given. Kept are 100 exchanges (a message and what was said to it), for 30 days, within 256 KiB (bus/scripts/_library.lua)."""
MOST_TURN_BYTES = 16 * 1024
"""Of a turn's text; the rest is cut off. Ten pages: more of one message helps no model, and it is kept for 30 days."""
MOST_TOOL_BYTES = 4 * 1024
"""Of a tool's arguments, and of its result: enough to go on from, and a model that needs the rest calls it again."""
CUT_OFF = " […]"
MOST_EXCHANGE_BYTES = 64 * 1024
"""Of all texts of an exchange, of which each has the same share."""
MOST_TURN_FILES = 16
"""Of a message, for whoever quotes it; what is kept of one is how it is opened, and has some 400 bytes."""
MOST_EXCHANGE_FILES = 64
"""Of an exchange of several messages, of which each has the same share."""
MOST_FILE_BYTES = 2 * 1024
"""Of what is kept of a file; one that is called by more is left out."""
MOST_ALT_CHARACTERS = 500
_NO_FILES, _NOTHING = _packed([]), _packed({})
_SHOWS = ("type", "attachment_id", "alt", "transcript")
"""What a payload says of its own file."""


GRANTED_FOR_MS = 24 * 3600 * 1000
"""For so long a yes to a tool counts that is `medium`."""

MOST_GRANTS = 64
"""That are carried on in a conversation: each has a person and a tool, and some 150 bytes."""


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """Who asked for the tool with this fingerprint when it was approved for a day, and when that was (ms of Unix time)."""

    by: str
    at_ms: int
    fingerprint: str

    def holds(self, now_ms: int) -> bool:
        """Returns whether it counts still; one of the future, by a clock that was set back, does not."""
        return now_ms - GRANTED_FOR_MS < self.at_ms <= now_ms


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the model has called, and what came of it. `arguments`: JSON.

    `approved_by`, `approved_ms`: who has approved the tool with this fingerprint for a day, and when (ms of Unix time).
    """

    name: str
    arguments: str
    result: str
    approved_by: str = ""
    approved_ms: int = 0
    fingerprint: str = ""

    def __repr__(self) -> str:
        return f"ToolUse(name={self.name!r}, …)"


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was said. `role`: `user` for people and other agents, `assistant` for this agent.

    `text`: what was written; of anything but a text a word for it in brackets, such as `[image: a cat]`. `is_cut`: it was longer.
    `at_ms`: when (ms of Unix time). `tools`: those that the model has called, of a turn that has no words. `grants`: what was approved for a day
    earlier, and is carried on so that it does not go with the turn in which it was. `packed_attachments`, `packed_shows`: how its files are opened, and
    what its payload says of its own one (PROTOCOL §5.9), for a message that quotes it. Nothing of it can be changed: the runs of a worker share it.
    """

    role: Literal["user", "assistant"]
    text: str
    sender_id: str = ""
    sender_name: str = ""
    message_id: str = ""
    at_ms: int = 0
    is_cut: bool = False
    tools: tuple[ToolUse, ...] = ()
    grants: tuple[Grant, ...] = ()
    packed_attachments: msgspec.Raw = msgspec.field(default=_NO_FILES, name="attachments")
    packed_shows: msgspec.Raw = msgspec.field(default=_NOTHING, name="shows")

    def __repr__(self) -> str:
        return f"Turn(role={self.role!r}, message_id={self.message_id!r}, …)"

    @property
    def attachments(self) -> tuple[Payload, ...]:
        """How its files are opened, made anew each time: the caller may change it."""
        return msgspec.msgpack.decode(self.packed_attachments, type=tuple[Payload, ...])

    @property
    def shows(self) -> Payload:
        """What its payload says of its own file, made anew each time."""
        return msgspec.msgpack.decode(self.packed_shows, type=Payload)


class History(Sequence[Turn]):
    """Turns, oldest first. `open_turns` makes them when the first of them is looked at."""

    def __init__(self, turns: Sequence[Turn] = (), *, open_turns: Callable[[], Sequence[Turn]] | None = None) -> None:
        self._opened: Sequence[Turn] = turns
        self._open_turns = open_turns

    @property
    def _turns(self) -> Sequence[Turn]:
        if self._open_turns is not None:
            self._opened, self._open_turns = self._open_turns(), None
        return self._opened

    def __repr__(self) -> str:
        return f"History({len(self)} turns)"

    @overload
    def __getitem__(self, at: int) -> Turn: ...
    @overload
    def __getitem__(self, at: slice) -> "History": ...
    def __getitem__(self, at: int | slice) -> "Turn | History":
        return History(self._turns[at]) if isinstance(at, slice) else self._turns[at]

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def is_open(self) -> bool:
        """Whether somebody has looked at the turns."""
        return self._open_turns is None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as a language model takes them: `{"role": …, "content": …}`."""
        return [{"role": turn.role, "content": turn.text} for turn in self._turns if turn.text or not turn.tools]

    def last(self, count: int) -> "History":
        """Returns the `count` newest turns."""
        return History(self._turns[-count:] if count > 0 else ())


def grants_in(turns: Iterable[Turn], now_ms: int) -> dict[tuple[str, str], Grant]:
    """Returns what was approved for a day and counts still, the latest of each, by person and fingerprint."""
    found = dict[tuple[str, str], Grant]()
    for turn in turns:
        if not (turn.tools or turn.grants):
            continue
        new = [Grant(use.approved_by, use.approved_ms, use.fingerprint) for use in turn.tools if use.approved_by]
        for grant in (*turn.grants, *new):
            known = found.get((grant.by, grant.fingerprint))
            if grant.by and grant.holds(now_ms) and (known is None or known.at_ms < grant.at_ms):
                found[grant.by, grant.fingerprint] = grant
    return found


def carried_on(history: History, now_ms: int) -> list[Grant]:
    """Returns what was approved for a day, and stands in the older half of a history alone: what is oldest there goes next."""
    half = len(history) // 2
    in_older = grants_in(history[:half], now_ms)
    if not in_older:
        return []
    newer = grants_in(history[half:], now_ms)
    older = [grant for name, grant in in_older.items() if name not in newer]
    return sorted(older, key=lambda grant: grant.at_ms)[-MOST_GRANTS:]


def turn_of(message: InboundMessage, at_ms: int) -> Turn:
    """Returns the turn of a message that came in."""
    attachments = [one for one in message.attachments[:MOST_TURN_FILES] if _is_short(one)]
    return Turn(
        role="user",
        text=message.text or _word_for(message.payload),
        sender_id=message.sender_id,
        sender_name=message.sender_display_name or "",
        message_id=message.message_id,
        at_ms=at_ms,
        packed_attachments=_packed(attachments) if attachments else _NO_FILES,
        packed_shows=_packed(_shows(message.payload)) if message.attachments else _NOTHING,
    )


def _is_short(attachment: Payload) -> bool:
    return len(msgspec.msgpack.encode(attachment)) <= MOST_FILE_BYTES


def _shows(payload: Payload) -> Payload:
    return {name: said[:MOST_ALT_CHARACTERS] for name in _SHOWS if isinstance(said := payload.get(name), str)}


def turn_of_answer(said: Mapping[str, object], sender_id: str, at_ms: int) -> Turn:
    """Returns the turn of an answer to a question of a handler's."""
    text = said.get("text")
    words = text if isinstance(text, str) else _word_for_card({"subtype": "response", "payload": said})
    return Turn(role="user", text=words, sender_id=sender_id, at_ms=at_ms)


def turn_of_reply(reply: Reply, at_ms: int) -> Turn | None:
    """Returns the turn of a reply; None for what says nothing by itself: a stream's beginning, the update of a card."""
    if reply.kind not in ("message", "stream_done") or "ref_artifact" in reply.payload:
        return None
    said = reply.payload.get("text")
    return Turn(role="assistant", text=said if isinstance(said, str) else _word_for(reply.payload), at_ms=at_ms)


def encode_exchange(turns: Sequence[Turn]) -> bytes:
    """Encodes the turns of a job, each cut to its share. A later version only adds fields."""
    most = min(MOST_TURN_BYTES, MOST_EXCHANGE_BYTES // len(turns))
    with_files = sum(1 for turn in turns if turn.packed_attachments != _NO_FILES)
    most_files = max(1, MOST_EXCHANGE_FILES // with_files) if with_files else 0
    return msgspec.msgpack.encode([_cut(_with_files(turn, most_files), most) for turn in turns])


class Exchanged(list[Turn]):
    """The turns of a job as they were kept. `has_grants`: something was approved for a day in one of them, or before."""

    __slots__ = ("has_grants",)

    def __init__(self, turns: Iterable[Turn]) -> None:
        super().__init__(turns)
        self.has_grants = any(turn.tools or turn.grants for turn in self)


def decode_exchange(body: bytes) -> Exchanged:
    """Decodes the turns of a job. Raises msgspec.DecodeError."""
    return Exchanged(_EXCHANGE.decode(body))


_EXCHANGE = msgspec.msgpack.Decoder(list[Turn])


def _with_files(turn: Turn, most: int) -> Turn:
    if turn.packed_attachments == _NO_FILES or len(attachments := turn.attachments) <= most:
        return turn
    return msgspec.structs.replace(turn, packed_attachments=_packed(attachments[:most]))


def _cut(turn: Turn, most_bytes: int) -> Turn:
    if turn.tools:
        most = min(MOST_TOOL_BYTES, most_bytes // (2 * len(turn.tools)))
        return msgspec.structs.replace(turn, tools=tuple(_cut_use(use, most) for use in turn.tools))
    if len(turn.text) * 4 <= most_bytes or len(whole := turn.text.encode()) <= most_bytes:
        return turn
    return msgspec.structs.replace(turn, text=whole[:most_bytes].decode(errors="ignore"), is_cut=True)


def _cut_use(use: ToolUse, most_bytes: int) -> ToolUse:
    """Returns a call with its result cut to its share; arguments of which a part would be no JSON are left out."""
    arguments = use.arguments if len(use.arguments.encode()) <= most_bytes else "{}"
    whole = use.result.encode()
    result = use.result if len(whole) <= most_bytes else whole[:most_bytes].decode(errors="ignore") + CUT_OFF
    return msgspec.structs.replace(use, arguments=arguments, result=result)


def _word_for(payload: Mapping[str, object]) -> str:
    """Returns a word for a payload that is no text: its kind, and what of it can be read."""
    kind = payload.get("type")
    artifact = payload.get("artifact")
    if isinstance(artifact, dict):
        return _word_for_card(artifact)
    shown = next((one for name in ("alt", "transcript", "filename") if isinstance(one := payload.get(name), str)), "")
    return f"[{kind}: {shown}]" if shown else f"[{kind}]"


def _word_for_card(card: Mapping[str, object]) -> str:
    payload = card.get("payload")
    inside = payload if isinstance(payload, dict) else {}
    if card.get("subtype") == "response":
        given = inside.get("values") or inside.get("decision") or inside.get("action") or ""
        said = given if isinstance(given, str) else msgspec.json.encode(_without_keys(given)).decode()
        return f"[answer: {said}]"
    parts = [one for one in (card.get("title"), inside.get("body")) if isinstance(one, str) and one]
    return "\n".join([f"[{card.get('subtype', 'card')}]", *parts])


def _without_keys(given: object) -> object:
    """Returns the values of a form, of a file only that it is one: how it is opened is nothing that a model is told."""
    if isinstance(given, list):
        return [_without_keys(one) for one in given]
    if not isinstance(given, dict):
        return given
    if "attachment_id" in given:
        return f"[file: {name}]" if isinstance(name := given.get("filename"), str) else "[file]"
    return {name: _without_keys(one) for name, one in given.items()}
