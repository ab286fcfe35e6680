"""Takes in what no job said: `hashee-agent send`, `stream`, `recall`, `react`, `typing`, `mcp`, and `Outside` of an owner's own program.

It checks what can be known before anything is stored, and names the remedy: whoever sends is there to read it. What changes afterwards (a grant
that is taken back while the message waits) is found at its commit, as with any reply.
"""

import re
from typing import Final

import msgspec

from bus.records import ulid
from bus.records.kept import STORE, open_kept
from bus.records.outside import (
    ACT_PLACE,
    ASK_REMINDER,
    ASKED,
    OURS,
    OUTSIDE,
    PLACE,
    REMINDER,
    START_PLACE,
    AnswerWanted,
    OutsideAnswer,
    OutsideMessage,
    OutsideQuestion,
    OutsideShow,
    SendKey,
    answer_key,
    id_of,
    send_key,
)
from bus.records.records import (
    GROUP,
    RUN,
    InboundMessage,
    Live,
    LiveAbort,
    LiveDelta,
    LiveTyping,
    Payload,
    Reply,
    ReplyPlace,
    pack_live,
    pack_placed_job,
    pack_reply,
)
from bus.records.sealing import StoreKeys
from bus.records.sent_ids import places_in
from bus.records.timers import due_payload
from bus.steps.outside import OutsideMessages, SendOutcome
from bus.steps.placing import MOST_PLACED_BYTES
from bus.steps.store import InboundStore, now_ms
from bus.steps.vault import Vault
from bus.steps.write_count import epoch_now
from supervisor.peers.owners import Owner

MOST_CHARACTERS: Final = 100_000
"""PROTOCOL §1: the platform refuses longer texts."""

MOST_EMOJI_CHARACTERS: Final = 16
"""Of an emoji with all that modifies it; who asks has looked whether it is one (workers/emoji.py)."""

MOST_QUESTION_CHARACTERS: Final = 4_000
MOST_ASKED_DETAILS_CHARACTERS: Final = 10_000
"""As of an approval that a handler asks: what nobody reads to its end is approved unseen."""

MOST_ASKED_SECONDS: Final = 30 * 86_400.0
"""A handler's question is open no longer either."""

RELAYS_ID: Final = re.compile(r"[!-~]{1,128}")
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,48}")
"""As `@agent.on_reminder` takes it (workers/talk/reminding.py): a longer one no handler could ever have."""
KEY: Final = re.compile(r"[!-~]{1,128}")


class NotTakenIn(Exception):
    """A message was not taken in. `reason`: one word, for scripts; the text names the remedy. No text quotes the message."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def is_temporary(self) -> bool:
        """Whether the same may be taken in a moment later."""
        return self.reason in ("full", "no_agent")


class OutsideReceipt(msgspec.Struct, frozen=True):
    """What became of a message. `outcome`: queued, waits (behind others of its kind), already (the same was sent under this key), or taken_back
    (what it recalls was not sent yet, and never is)."""

    conversation_id: str
    id: str
    outcome: str


class FromOutside:
    """Takes messages in for one agent."""

    def __init__(self, messages: OutsideMessages, store: InboundStore, vault: Vault, keys: StoreKeys) -> None:
        self._messages = messages
        self._store = store
        self._vault = vault
        self._keys = keys

    async def send(self, message: OutsideMessage) -> OutsideReceipt:
        """Queues a message, an act or a reminder, once for a key. Raises NotTakenIn, RedisFailed, BadRecord."""
        _check(message)
        pins = await self._checked_recipient(message.conversation_id)
        if message.recall is not None:
            return await self._recall(message, message.recall)
        if message.react_to is not None:
            payload: Payload = {"message_id": message.react_to, "emoji": message.emoji}
            return await self._act(message, Reply(kind="reaction", content_type="reaction", payload=payload))
        key = self._send_key(message)
        is_job = message.reminder is not None
        identifier = id_of(key, begins=REMINDER if is_job else OUTSIDE, stream_id=message.stream_id)
        record = await self._job(message, identifier, pins) if is_job else self._said(message, identifier)
        outcome = await self._messages.send(
            message.conversation_id,
            record,
            identifier,
            key=key,
            budgets=self._store.budgets,
            is_job=is_job,
            card=_card_of(message),
        )
        return _receipt(outcome, message.conversation_id, message.key, identifier)

    async def ask(self, question: OutsideQuestion) -> OutsideReceipt:
        """Has somebody asked by a job that is placed behind all that waits there, once for a key; `answer` tells what came of it.

        Raises NotTakenIn, RedisFailed, BadRecord.
        """
        _check_question(question)
        conversation = question.conversation_id
        kind, person = pins = await self._checked_recipient(conversation)
        who = question.who or ("" if kind == GROUP else person)
        if not who or (kind != GROUP and who != person):
            raise NotTakenIn(
                "who_is_asked",
                f"{conversation} is a group: name whose answer counts by their id"
                if kind == GROUP
                else f"{question.who} does not take part in {conversation}, which is {person}'s",
            )
        asked = msgspec.structs.replace(question, who=who, key=None)
        same = [ASK_REMINDER, asked.question, asked.is_approval, asked.details, who]
        key = None if question.key is None else send_key(self._keys.identifier, conversation, question.key, same)
        identifier = id_of(key, begins=ASKED)
        data = msgspec.to_builtins(asked)
        outcome = await self._messages.send(
            conversation,
            await self._job(OutsideMessage(conversation, reminder=ASK_REMINDER, data=data), identifier, pins),
            identifier,
            key=key,
            budgets=self._store.budgets,
            is_job=True,
        )
        return _receipt(outcome, conversation, question.key, identifier)

    async def answer(self, wanted: AnswerWanted) -> OutsideAnswer | None:
        """Returns what came of a question; None as long as it is open, or is not known. Raises RedisFailed, BadRecord."""
        name = answer_key(wanted.id)
        packed = await self._messages.stored(name)
        if packed is None:
            return None
        body = open_kept(packed, STORE, "", name, key=self._keys.bus, agent_id=self._store.keys.agent_id)
        answer = msgspec.msgpack.decode(body, type=OutsideAnswer)
        return answer if answer.conversation_id == wanted.conversation_id else None

    async def show(self, shown: OutsideShow) -> OutsideReceipt:
        """Shows that somebody types, or a text that grows. Raises NotTakenIn, RedisFailed."""
        conversation = shown.conversation_id
        if shown.what in ("delta", "abort"):
            await self._publish(
                LiveDelta(conversation, shown.stream_id, shown.seq, shown.text)
                if shown.what == "delta"
                else LiveAbort(conversation, shown.stream_id)
            )
            return OutsideReceipt(conversation, f"{OUTSIDE}{shown.stream_id}", "shown")
        message = OutsideMessage(conversation, key=shown.key, stream_id=shown.stream_id)
        _check_key(shown.key)
        await self._checked_recipient(conversation)
        if shown.what == "begin":
            return await self._begin(message)
        await self._publish(LiveTyping(conversation, active=shown.what == "typing"))
        return OutsideReceipt(conversation, "", "shown")

    async def _begin(self, message: OutsideMessage) -> OutsideReceipt:
        """Queues the beginning of a stream, if nothing was sent under its key."""
        _check_stream(message.stream_id)
        key = self._send_key(message)
        looked_at = None if key is None else msgspec.structs.replace(key, said=b"")
        identifier = id_of(key, stream_id=message.stream_id)
        start = Reply(kind="stream_start", content_type="text", payload={RUN: ""}, stream_id=message.stream_id)
        record = self._packed(message, identifier, START_PLACE, start)
        outcome = await self._messages.send(
            message.conversation_id,
            record,
            identifier,
            key=looked_at,
            budgets=self._store.budgets,
            beside="start",
        )
        return _receipt(outcome, message.conversation_id, message.key, identifier)

    async def _publish(self, live: Live) -> None:
        packed = pack_live(live, key=self._keys.bus, agent_id=self._store.keys.agent_id)
        if not await self._messages.show(packed):
            raise NotTakenIn(
                "no_agent", "no agent runs now, so nobody can be shown this: start one with hashee-agent up"
            )

    async def _recall(self, message: OutsideMessage, sent_id: str) -> OutsideReceipt:
        """Queues the recall of each part of what was sent; of something that stands in the line, takes it out."""
        receipts = []
        for number, (job_id, place) in enumerate(await self._places(message.conversation_id, sent_id), start=1):
            act = Reply(kind="recall", content_type="recall", payload={"job_id": job_id, "place": place})
            receipts.append(await self._act(message, act, takes_back=job_id, number=number))
        return receipts[0]

    async def _places(self, conversation_id: str, sent_id: str) -> list[tuple[str, str]]:
        """Returns job and place of each part of what has this id. Raises NotTakenIn."""
        if " " in sent_id:
            return places_in(sent_id)
        if sent_id.startswith(OUTSIDE):
            return [(sent_id, PLACE)]
        card = await self._messages.card(conversation_id, sent_id)
        if card is None:
            raise NotTakenIn(
                "unknown_message",
                f"nothing of {conversation_id} has this id: name what hashee-agent send or chat.reply() gave, or a card's id",
            )
        return [(card.job_id, card.place)]

    async def _act(
        self, message: OutsideMessage, act: Reply, *, takes_back: str = "", number: int = 1
    ) -> OutsideReceipt:
        key = self._send_key(message, number)
        identifier = id_of(key)
        outcome = await self._messages.send(
            message.conversation_id,
            self._packed(message, identifier, ACT_PLACE, act),
            identifier,
            key=key,
            budgets=self._store.budgets,
            beside="act",
            takes_back=takes_back,
        )
        return _receipt(outcome, message.conversation_id, message.key, identifier)

    async def _checked_recipient(self, conversation_id: str) -> tuple[str, str]:
        """Returns the conversation's kind and person, if it may be written to. Raises NotTakenIn."""
        pins = await self._store.pins(conversation_id)
        if pins is None:
            raise _unknown(conversation_id)
        kind, person = pins
        if kind == GROUP:
            return pins
        row = (await self._vault.owner(person)).value
        if row is None or not Owner.decode(row).is_active:
            raise NotTakenIn(
                "no_grant",
                f"{person}, whose conversation {conversation_id} is, has no active grant, so nothing may be sent there: "
                f"hashee-agent grants list {person}",
            )
        return pins

    def _said(self, message: OutsideMessage, identifier: str) -> bytes:
        """Packs a text, a card, or the end of a stream."""
        payload: Payload = {"type": "text", "text": message.text} if message.card is None else message.card
        if message.markdown:
            payload["markdown"] = True
        content_type, stream_id = str(payload["type"]), message.stream_id
        reply = (
            Reply(kind="stream_done", content_type=content_type, payload=payload, stream_id=stream_id)
            if stream_id
            else Reply(kind="message", content_type=content_type, payload=payload)
        )
        return self._packed(message, identifier, PLACE, reply)

    def _packed(self, message: OutsideMessage, identifier: str, place: str, reply: Reply) -> bytes:
        at = ReplyPlace(identifier, message.conversation_id, place, now_ms())
        agent_id = self._store.keys.agent_id
        return pack_reply(at, reply, emitted_ms=now_ms(), key=self._keys.bus, agent_id=agent_id)

    async def _job(self, message: OutsideMessage, identifier: str, pins: tuple[str, str]) -> bytes:
        """Packs the job of a reminder that is due now. Raises NotTakenIn."""
        kind, person = pins
        content = InboundMessage(
            message_id=identifier,
            conversation_id=message.conversation_id,
            conversation_type=kind,
            sender_id="" if kind == GROUP else person,
            sender_type="human",
            payload=due_payload("reminder", message.reminder or "", msgspec.msgpack.encode(message.data), now_ms()),
        )
        agent_id = self._store.keys.agent_id
        epoch = await epoch_now(self._store.client, self._store.keys)
        packed = pack_placed_job(
            "reminder", content, placed_ms=now_ms(), key=self._keys.bus, agent_id=agent_id, epoch=epoch
        )
        if len(packed) > MOST_PLACED_BYTES:
            raise NotTakenIn(
                "data_too_large",
                f"the data of a reminder, and a question with its details, have at most {MOST_PLACED_BYTES // 1024} KiB in all: "
                "name where it stands instead",
            )
        return packed

    def _send_key(self, message: OutsideMessage, number: int = 1) -> SendKey | None:
        """Returns the digests of the message's key. `number`: of the part, where a message is several acts."""
        if message.key is None:
            return None
        key = message.key if number == 1 else f"{message.key} {number}"  # no key of a message has a space
        return send_key(self._keys.identifier, message.conversation_id, key, _said(message))


def _receipt(outcome: SendOutcome, conversation: str, key: str | None, identifier: str) -> OutsideReceipt:
    """Returns what became of a message. Raises NotTakenIn."""
    match outcome:
        case SendOutcome.QUEUED | SendOutcome.WAITS | SendOutcome.ALREADY | SendOutcome.TAKEN_BACK:
            return OutsideReceipt(conversation, identifier, outcome.value.decode())
        case SendOutcome.KEY_USED:
            raise NotTakenIn(
                "key_used",
                f"something else was sent into {conversation} under the key {key} within the last 30 days: "
                "take another key for another message",
            )
        case SendOutcome.UNKNOWN:
            raise _unknown(conversation)
        case SendOutcome.MANY_KEYS:
            raise NotTakenIn(
                "many_keys",
                "so many keys are remembered as there is room for: send without --key, or give Redis more memory (HASHEE_REDIS_MEMORY)",
            )
        case SendOutcome.FULL:
            raise NotTakenIn("full", "too much waits to be sent; nothing was queued: try again in a moment")


def _check(message: OutsideMessage) -> None:
    """Checks what a message says by itself. Raises NotTakenIn."""
    _check_key(message.key)
    if message.recall is not None:
        return
    if message.react_to is not None:
        emoji = message.emoji
        if not RELAYS_ID.fullmatch(message.react_to) or (
            emoji is not None and not 1 <= len(emoji) <= MOST_EMOJI_CHARACTERS
        ):
            raise NotTakenIn(
                "bad_reaction", "a reaction is one emoji, or none to take it back, at a message that is named by its id"
            )
        return
    if message.reminder is not None:
        if not NAME.fullmatch(message.reminder) or message.text or message.reminder.startswith(OURS):
            raise NotTakenIn(
                "bad_reminder",
                "a reminder is named as in @agent.on_reminder(NAME), with 1 to 48 of A-Z, a-z, 0-9, '_', '.', '-', and has no text; "
                f"those that begin with {OURS} are the runtime's own",
            )
        return
    if message.card is not None:
        card_id, kind = _card_of(message)
        if ulid.time_ms(card_id) is None or not kind or message.text or message.markdown:
            raise NotTakenIn(
                "bad_card",
                "a card is sent as Outside.send(conversation, card) or hashee-agent send --artifact FILE makes it, without a text",
            )
        return
    if message.stream_id:
        _check_stream(message.stream_id)
    if not message.text.strip():
        raise NotTakenIn("empty_text", "there is no text: name it, or - to read it from stdin")
    if len(message.text) > MOST_CHARACTERS:
        raise NotTakenIn(
            "text_too_long",
            f"a text has at most {MOST_CHARACTERS} characters, this one has {len(message.text)}: send it in parts",
        )
    try:
        message.text.encode()
    except UnicodeEncodeError:
        raise NotTakenIn("bad_text", "this text is no valid UTF-8: convert it before it is sent") from None


def _check_question(question: OutsideQuestion) -> None:
    """Checks what a question says by itself. Raises NotTakenIn."""
    _check_key(question.key)
    details = question.details or ""
    if not question.question.strip():
        raise NotTakenIn("empty_text", "there is no question: say what is asked")
    if len(question.question) > MOST_QUESTION_CHARACTERS or len(details) > MOST_ASKED_DETAILS_CHARACTERS:
        raise NotTakenIn(
            "text_too_long",
            f"a question has at most {MOST_QUESTION_CHARACTERS} characters and its details {MOST_ASKED_DETAILS_CHARACTERS}, "
            "which nobody reads to the end: ask about less at a time",
        )
    if not 1 <= question.seconds <= MOST_ASKED_SECONDS:
        raise NotTakenIn("bad_time", "a question is open for 1 second to 30 days")
    try:
        f"{question.question}{details}{question.asker}".encode()
    except UnicodeEncodeError:
        raise NotTakenIn("bad_text", "this text is no valid UTF-8: convert it before it is sent") from None


def _check_key(key: str | None) -> None:
    if key is not None and not KEY.fullmatch(key):
        raise NotTakenIn("bad_key", "a key has 1 to 128 printable ASCII characters and no space, such as deploy-42")


def _check_stream(stream_id: str) -> None:
    if ulid.time_ms(stream_id) is None:
        raise NotTakenIn(
            "bad_stream", "a stream is named by a ULID, as Outside.stream() and hashee-agent stream make one"
        )


def _unknown(conversation_id: str) -> NotTakenIn:
    return NotTakenIn(
        "unknown_conversation",
        f"nobody has written in a conversation {conversation_id!r}, so it cannot be sent into: hashee-agent conversations",
    )


def _said(message: OutsideMessage) -> tuple[object, ...]:
    """Returns what counts as the same under one key."""
    if message.recall is not None:
        return "recall", message.recall
    if message.react_to is not None:
        return "reaction", message.react_to, message.emoji
    if message.reminder is not None:
        return message.reminder, msgspec.json.encode(message.data, order="deterministic")
    if message.card is not None:
        return "card", msgspec.json.encode(_without_what_each_has(message.card), order="deterministic")
    return message.text, message.markdown


def _card_of(message: OutsideMessage) -> tuple[str, str]:
    """Returns the card's id and what it is (bus/records/cards.py); empty texts where there is none, or it is no card."""
    artifact = {} if message.card is None else message.card.get("artifact")
    if not isinstance(artifact, dict) or (message.card and message.card.get("type") != "artifact"):
        return "", ""
    card_id, subtype, payload = artifact.get("artifact_id"), artifact.get("subtype"), artifact.get("payload")
    if not (isinstance(card_id, str) and isinstance(subtype, str) and isinstance(payload, dict)):
        return "", ""
    return card_id, f"{subtype} {payload.get('ui')}" if subtype == "app" else subtype


def _without_what_each_has(card: Payload) -> Payload:
    """Returns a card without its id, and without the hash that has the id in it: the same card has others each time that it is made."""
    artifact = card["artifact"]
    inner = {**artifact} if isinstance(artifact, dict) else {}
    inner.pop("artifact_id", None)
    payload = inner.get("payload")
    return {
        **inner,
        "payload": {name: value for name, value in payload.items() if name != "question_hash"}
        if isinstance(payload, dict)
        else payload,
    }
