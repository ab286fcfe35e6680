"""How messages from outside are named: those that no job said (`hashee-agent send`), and the keys under which they are sent once.

Their id stands where a reply has its job's. What is remembered under a key are digests that nobody without the identifier key can make:
neither the key nor a text can be guessed from what stands in Redis.
"""

import hmac
from typing import Final, Literal

import msgspec

from bus.records import ulid

OUTSIDE: Final = "outside:"
REMINDER: Final = "reminder:"
ASKED: Final = "asked:"
OURS: Final = "hashee."
"""What the names of the runtime's own reminders begin with: nobody else registers or sends one."""

ASK_REMINDER: Final = f"{OURS}ask"
FORGET_REMINDER: Final = f"{OURS}forget-answer"
PLACE: Final = "0"
START_PLACE: Final = f"{PLACE}:start:1"
"""Of the beginning of a stream, whose text is at PLACE (supervisor/outbound/stream_replies.py)."""

ACT_PLACE: Final = "act"
"""Of a recall or a reaction from outside, which takes no turn."""

DIGEST_BYTES: Final = 16


class OutsideMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be said in a conversation, the `card` (a payload of PROTOCOL §4.1) that is to be shown, or the `reminder` whose handler is to run there, with its `data`.

    `key`: it is sent once, however often it is asked for. `recall`: the id of what is to be taken back, as Receipt or workers.Sent has it, or a
    card's. `react_to`: the relay's id of a message at which `emoji` is shown, None for none any more. `stream_id`: of the stream that
    `text` ends.
    """

    conversation_id: str
    text: str = ""
    markdown: bool = False
    key: str | None = None
    reminder: str | None = None
    data: object = None
    card: dict[str, object] | None = None
    recall: str | None = None
    react_to: str | None = None
    emoji: str | None = None
    stream_id: str = ""

    def __repr__(self) -> str:
        return f"OutsideMessage(conversation_id={self.conversation_id!r}, …)"


class OutsideQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a program asks somebody in a conversation; with a `key` once, however often it asks.

    `who`: whose answer counts; '' for the person of the conversation. `asker`: what the program calls itself. `seconds`: how long it is open.
    """

    conversation_id: str
    question: str
    seconds: float
    is_approval: bool = False
    details: str | None = None
    who: str = ""
    asker: str = ""
    key: str | None = None

    def __repr__(self) -> str:
        return f"OutsideQuestion(conversation_id={self.conversation_id!r}, …)"


class AnswerWanted(msgspec.Struct, frozen=True):
    """Whether there is an answer to a question, by the id of its receipt."""

    conversation_id: str
    id: str


class OutsideAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a question of a program has ended. `status`: `answered`, `no_answer` (`reason`: timeout or cancelled), `refused` (`reason` says why).

    `approved`: of an approval; `text`: what was answered, or written beside a decision. `is_cut`: the text was longer than is kept.
    """

    conversation_id: str
    status: Literal["answered", "no_answer", "refused"]
    approved: bool | None = None
    text: str = ""
    by: str = ""
    reason: str = ""
    is_cut: bool = False

    def __repr__(self) -> str:
        return f"OutsideAnswer(conversation_id={self.conversation_id!r}, status={self.status!r}, …)"


def answer_key(question_id: str) -> str:
    """Returns the key of the store (bus/records/kept.py) under which the answer stands."""
    return f"{OURS}answer:{question_id}"


Shows = Literal["typing", "typing_ends", "begin", "delta", "abort"]


class OutsideShow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is shown in a conversation and worth nothing later: that somebody types, or a text that grows. `text`: the piece of a delta."""

    conversation_id: str
    what: Shows
    stream_id: str = ""
    seq: int = 0
    text: str = ""
    key: str | None = None

    def __repr__(self) -> str:
        return f"OutsideShow(conversation_id={self.conversation_id!r}, what={self.what!r}, …)"


class SendKey(msgspec.Struct, frozen=True):
    """A key of a conversation, and what is sent under it, as digests."""

    name: bytes
    said: bytes


def id_of(key: SendKey | None, *, begins: str = OUTSIDE, stream_id: str = "") -> str:
    """Returns the id of a message, or (`begins` REMINDER, ASKED) of a job: under a key the same one to whoever repeats it, else a new one."""
    return f"{begins}{stream_id or ulid.new() if key is None else key.name.hex()}"


def send_key(identifier_key: bytes, conversation_id: str, key: str, said: object) -> SendKey:
    """Returns the digests of a key and of what is sent under it (anything that msgpack knows)."""

    def digest(*words: object) -> bytes:
        packed = msgspec.msgpack.encode(("send", conversation_id, key, *words))
        return hmac.digest(identifier_key, packed, "sha256")

    return SendKey(digest()[:DIGEST_BYTES], digest(said))


def has_turn(answers: tuple[str, str]) -> bool:
    """Whether a reply is a message from outside, by its job id and place: what we say by ourselves in its name has another place."""
    job_id, place = answers
    return place == PLACE and job_id.startswith(OUTSIDE)
