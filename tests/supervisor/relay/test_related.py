"""What waits of frames about relations and refusals: what counts of them, and not what the relay says beside it."""

import msgspec
import pytest

from supervisor.outbound.decisions import MOST_CODE_CHARS, essence_of_answer
from supervisor.relay.frames import MessageAck, MessageError, Relation
from supervisor.relay.related import MOST_SCOPE_CHARACTERS, MOST_SCOPES, essence_of

pytestmark = pytest.mark.pure

LONG = "x" * 2_000_000


def test_of_a_relation_only_what_counts_waits() -> None:
    given = Relation(
        "u", LONG, LONG, LONG, LONG, public_key="k" * 44, signing_public_key=LONG, scopes=(LONG,) * 200, status=LONG
    )
    kept = essence_of(given)
    assert (kept.user_id, kept.public_key, kept.signing_public_key) == ("u", "k" * 44, None)
    assert kept.scopes == ("x" * MOST_SCOPE_CHARACTERS,) * MOST_SCOPES
    assert len(msgspec.json.encode(kept)) < 20_000
    assert essence_of(kept) == kept


def test_of_a_refusal_only_its_code_waits() -> None:
    kept = essence_of_answer(MessageError(LONG, "cmid", LONG, retry_after=2.0))
    assert kept == MessageError("x" * MOST_CODE_CHARS, "cmid", retry_after=2.0)
    ack = MessageAck("cmid", "m", 9)
    assert essence_of_answer(ack) is ack
