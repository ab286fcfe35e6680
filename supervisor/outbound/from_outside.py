"""Takes in a message that no job said: `hashee-agent send`, and `Outside` of an owner's own program.

It checks what can be known before anything is stored, and names the remedy: whoever sends is there to read it. What changes afterwards (a grant
that is taken back while the message waits) is found at its commit, as with any reply.
"""

import re
from typing import Final

import msgspec

from bus.records import ulid
from bus.records.outside import OUTSIDE, PLACE, REMINDER, OutsideMessage, SendKey, id_of, send_key
from bus.records.records import GROUP, InboundMessage, Payload, Reply, ReplyPlace, pack_placed_job, pack_reply
from bus.records.sealing import StoreKeys
from bus.records.timers import due_payload
from bus.steps.outside import OutsideMessages, Sent
from bus.steps.placing import MOST_PLACED_BYTES
from bus.steps.store import Store, now_ms
from bus.steps.vault import Vault
from supervisor.peers.owners import Owner

MOST_CHARACTERS: Final = 100_000
"""PROTOCOL §1: the platform refuses longer texts."""

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KEY: Final = re.compile(r"[!-~]{1,128}")


class NotSent(Exception):
    """A message was not taken in. `reason`: one word, for scripts; the text names the remedy. No text quotes the message."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def is_temporary(self) -> bool:
        """Whether the same may be taken in a moment later."""
        return self.reason == "full"


class Receipt(msgspec.Struct, frozen=True):
    """What became of a message. `outcome`: queued, waits (behind others of its kind), or already (the same was sent under this key)."""

    conversation_id: str
    id: str
    outcome: str


class FromOutside:
    """Takes messages in for one agent."""

    def __init__(self, messages: OutsideMessages, store: Store, vault: Vault, keys: StoreKeys) -> None:
        self._messages = messages
        self._store = store
        self._vault = vault
        self._keys = keys

    async def send(self, message: OutsideMessage) -> Receipt:
        """Queues a message, once for a key. Raises NotSent, RedisFailed."""
        _check(message)
        conversation = message.conversation_id
        pins = await self._checked_recipient(conversation)
        key = None if message.key is None else self._send_key(message, message.key)
        is_job = message.reminder is not None
        identifier = id_of(key, begins=REMINDER if is_job else OUTSIDE)
        record = self._job(message, identifier, pins) if is_job else self._reply(message, identifier)
        budgets = self._store.budgets
        match await self._messages.send(
            conversation, record, identifier, key=key, budgets=budgets, is_job=is_job, card=_card_of(message)
        ):
            case Sent.QUEUED:
                return Receipt(conversation, identifier, "queued")
            case Sent.WAITS:
                return Receipt(conversation, identifier, "waits")
            case Sent.ALREADY:
                return Receipt(conversation, identifier, "already")
            case Sent.KEY_USED:
                raise NotSent(
                    "key_used",
                    f"something else was sent into {conversation} under the key {message.key} within the last 30 days: "
                    "take another key for another message",
                )
            case Sent.UNKNOWN:
                raise _unknown(conversation)
            case Sent.MANY_KEYS:
                raise NotSent(
                    "many_keys",
                    "so many keys are remembered as there is room for: send without --key, or give Redis more memory (HASHEE_REDIS_MEMORY)",
                )
            case Sent.FULL:
                raise NotSent("full", "too much waits to be sent; nothing was queued: try again in a moment")

    async def _checked_recipient(self, conversation_id: str) -> tuple[str, str]:
        """Returns the conversation's kind and person, if it may be written to. Raises NotSent."""
        pins = await self._store.pins(conversation_id)
        if pins is None:
            raise _unknown(conversation_id)
        kind, person = pins
        if kind == GROUP:
            return pins
        row = (await self._vault.owner(person)).value
        if row is None or not Owner.decode(row).is_active:
            raise NotSent(
                "no_grant",
                f"{person}, whose conversation {conversation_id} is, has no active grant, so nothing may be sent there: "
                f"hashee-agent grants list {person}",
            )
        return pins

    def _reply(self, message: OutsideMessage, identifier: str) -> bytes:
        payload: Payload = {"type": "text", "text": message.text} if message.card is None else message.card
        if message.markdown:
            payload["markdown"] = True
        reply = Reply(kind="message", content_type=str(payload["type"]), payload=payload)
        at = ReplyPlace(identifier, message.conversation_id, PLACE, now_ms())
        agent_id = self._store.keys.agent_id
        return pack_reply(at, reply, emitted_ms=now_ms(), key=self._keys.bus, agent_id=agent_id)

    def _job(self, message: OutsideMessage, identifier: str, pins: tuple[str, str]) -> bytes:
        """Packs the job of a reminder that is due now. Raises NotSent."""
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
        packed = pack_placed_job("reminder", content, placed_ms=now_ms(), key=self._keys.bus, agent_id=agent_id)
        if len(packed) > MOST_PLACED_BYTES:
            raise NotSent(
                "data_too_large",
                f"the data of a reminder has at most {MOST_PLACED_BYTES // 1024} KiB in all: name where it stands instead",
            )
        return packed

    def _send_key(self, message: OutsideMessage, key: str) -> SendKey:
        return send_key(self._keys.identifier, message.conversation_id, key, _said(message))


def _check(message: OutsideMessage) -> None:
    """Checks what a message says by itself. Raises NotSent."""
    if message.key is not None and not KEY.fullmatch(message.key):
        raise NotSent("bad_key", "a key has 1 to 128 printable ASCII characters and no space, such as deploy-42")
    if message.reminder is not None:
        if not NAME.fullmatch(message.reminder) or message.text:
            raise NotSent(
                "bad_reminder",
                "a reminder is named as in @agent.on_reminder(NAME), with 1 to 64 of A-Z, a-z, 0-9, '_', '.', '-', and has no text",
            )
        return
    if message.card is not None:
        card_id, kind = _card_of(message)
        if ulid.time_ms(card_id) is None or not kind or message.text or message.markdown:
            raise NotSent(
                "bad_card",
                "a card is sent as Outside.send(conversation, card) or hashee-agent send --artifact FILE makes it, without a text",
            )
        return
    if not message.text:
        raise NotSent("empty_text", "there is no text: name it, or - to read it from stdin")
    if len(message.text) > MOST_CHARACTERS:
        raise NotSent(
            "text_too_long",
            f"a text has at most {MOST_CHARACTERS} characters, this one has {len(message.text)}: send it in parts",
        )
    try:
        message.text.encode()
    except UnicodeEncodeError:
        raise NotSent("bad_text", "this text is no valid UTF-8: convert it before it is sent") from None


def _unknown(conversation_id: str) -> NotSent:
    return NotSent(
        "unknown_conversation",
        f"nobody has written in a conversation {conversation_id!r}, so it cannot be sent into: hashee-agent conversations",
    )


def _said(message: OutsideMessage) -> tuple[object, ...]:
    """Returns what counts as the same under one key."""
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
