"""What waits of frames about relations and refusals: what counts of them, and not what the relay says beside it."""

import msgspec
import pytest

from bus.steps.outbox import Outbox
from supervisor.observe.metrics import Metrics
from supervisor.outbound.delivery import MOST_CODE_CHARS, Delivery
from supervisor.outbound.sender import Sender
from supervisor.outbound.turns import Turns
from supervisor.relay.frames import MessageError, Relation
from supervisor.relay.pending_acks import PendingAcks
from supervisor.relay.related import MOST_SCOPE_CHARACTERS, MOST_SCOPES, essence_of
from tests.supervisor.builders import dead_instance
from tests.supervisor.doubles import FakeConnection

pytestmark = pytest.mark.pure

LONG = "x" * 2_000_000


class NobodysOutbox(Outbox):
    """Knows no conversation."""

    def __init__(self) -> None:
        self.consumer = "supervisor"

    def own_conversation_of(self, client_message_id: str) -> str | None:  # noqa: ARG002 - as Outbox
        return None


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
    delivery = Delivery(
        NobodysOutbox(),
        FakeConnection(),
        dead_instance(),
        pending=PendingAcks(),
        sender=Sender(FakeConnection()),
        stream_ends=None,  # type: ignore[arg-type]  # nothing is streamed here
        turns=Turns(None),  # type: ignore[arg-type]  # nothing comes from outside
        metrics=Metrics(),
    )
    delivery.heard(MessageError(LONG, "cmid", LONG, retry_after=2.0))
    assert delivery._early == [MessageError("x" * MOST_CODE_CHARS, "cmid", retry_after=2.0)]
