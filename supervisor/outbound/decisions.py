"""What follows from what Redis and the relay have answered about a reply. Values in, values out: nothing here asks, waits or sends.

The classes beside this file do what is decided here. Each decision is a function of its arguments alone, and its tests need nothing else.
"""

import enum
import re
from typing import Final

import msgspec

from bus.steps.outbox import Commit, Committed
from supervisor.relay.frames import MessageAck, MessageError

FORBIDDEN_IN_A_CODE: Final = re.compile(r"[^A-Za-z0-9_.-]")
"""A refusal's code is the relay's word, and goes into logs, dead letters and the ledger of messages."""

MOST_CODE_CHARS: Final = 64
"""What is kept of a refusal's code: it goes into a dead letter and into the log."""

TEMPORARY_CODES: Final = frozenset(("rate_limited", "too_many_requests", "internal_error", "unavailable", "429"))


class NextStep(enum.Enum):
    """What is done after a reply's commit was tried."""

    SEND = enum.auto()
    """It is committed: its ciphertext may leave."""

    SEND_STORED = enum.auto()
    """It was committed before, and the answer was lost: the bytes that are stored go out, not those made now."""

    SEAL_AGAIN = enum.auto()
    """The owner's row or a session has changed since it was encrypted."""

    VERIFY_AND_SEAL_AGAIN = enum.auto()
    """Redis may have gone back in time: whether it has is found out before it is encrypted again."""

    WAIT_FOR_RATE = enum.auto()
    """The platform's rate of sends is used up."""

    LEAVE = enum.auto()
    """Nothing is sent: the reply was settled before, or another supervisor has it."""


def next_step(commit: Commit) -> NextStep:
    """Says what is done after this commit. A type checker, and a test, hold that every outcome has its step (DESIGN rule 14)."""
    match commit.outcome:
        case Committed.COMMITTED:
            return NextStep.SEND
        case Committed.WAIT:
            return NextStep.WAIT_FOR_RATE
        case Committed.STALE:
            return NextStep.SEAL_AGAIN
        case Committed.EPOCH | Committed.WENT_BACK:
            return NextStep.VERIFY_AND_SEAL_AGAIN
        case Committed.ALREADY:
            return NextStep.LEAVE if commit.stored is None else NextStep.SEND_STORED
        case Committed.DONE_BEFORE | Committed.NOT_HEAD | Committed.FENCED:
            return NextStep.LEAVE


def fetches_bundles(reason: str, *, has_fetched: bool) -> bool:
    """Whether bundles are fetched after encrypting failed for `reason`: once, if no device could be written to.

    A session that was there a moment ago is gone then: Redis went back, or another supervisor has ended it.
    """
    return reason == "no_usable_device" and not has_fetched


def ends_former_stream(own: str | None, shown: str) -> bool:
    """Whether the stream that the conversation shows (`shown`, '' for none) is told to be over before a final message with stream id `own`."""
    return shown not in ("", own)


def is_end_of_stream(own: str | None, shown: str, *, is_ours: bool) -> bool:
    """Whether a final message goes out as its stream's end: when this process (`is_ours`) or another supervisor shows that stream."""
    return own is not None and (is_ours or shown == own)


def essence_of_answer(answer: MessageAck | MessageError) -> MessageAck | MessageError:
    """Returns what is kept of an answer while it waits: a refusal's words are for nobody here, and may be long."""
    if isinstance(answer, MessageError):
        return msgspec.structs.replace(answer, code=answer.code[:MOST_CODE_CHARS], message="")
    return answer


def refusal_code(code: str) -> str:
    """Returns the relay's code with every character replaced that does not belong into a name."""
    return FORBIDDEN_IN_A_CODE.sub("_", code)


def is_temporary(code: str) -> bool:
    """Whether a refused message is sent again later: 429 and 5xx, by number or by name. Anything else is final."""
    return code in TEMPORARY_CODES or (len(code) == 3 and code.startswith("5"))
