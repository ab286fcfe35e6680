"""What we say by ourselves: offers that name what was lost, each under an id of its own; and what is taken from an event that others made."""

import pytest

from bus.records.records import Payload, Reply, decode_reply_record, open_reply
from supervisor.relay.own_words import RENEWED, OwnWords, lost_session, system_event
from tests.supervisor.builders import KEYS
from tests.supervisor.person import AGENT, CONVERSATION

pytestmark = pytest.mark.pure

LOST = bytes(range(16))


def words() -> OwnWords:
    return OwnWords(KEYS.bus, AGENT)


def said(packed: bytes) -> Reply:
    return open_reply(decode_reply_record(packed), key=KEYS.bus, agent_id=AGENT)


def test_an_offer_names_the_session_that_was_lost_and_nothing_else() -> None:
    bare = said(words().renewed("m", CONVERSATION, 1)).payload
    assert bare == {"type": "system", "event": {"kind": RENEWED}}
    payload = said(words().renewed("m", CONVERSATION, 1, lost=LOST)).payload
    assert (system_event(payload), lost_session(payload)) == (RENEWED, LOST)


def test_each_offer_has_a_place_of_its_own() -> None:
    places = {decode_reply_record(words().renewed("m", CONVERSATION, 1)).place for _ in range(10)}
    assert len(places) == 10


def test_a_refusal_of_what_agents_say_to_each_other_counts_their_hops() -> None:
    payloads = [said(words().refusal("m", CONVERSATION, 1, "not now", hops=hops)).payload for hops in (0, 2)]
    assert payloads == [{"type": "text", "text": "not now"}, {"type": "text", "text": "not now", "hop_count": 2}]


@pytest.mark.parametrize("event", [None, 7, "lost", {}, {"lost": None}, {"lost": 7}, {"lost": "no base64"}])
def test_an_offer_that_names_no_session_names_none(event: object) -> None:
    assert lost_session({"type": "system", "event": event}) == b""


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "text", "event": {"kind": RENEWED}},
        {"event": {"kind": RENEWED}},
        {"type": "system"},
        {"type": "system", "event": RENEWED},
        {"type": "system", "event": {}},
        {"type": "system", "event": {"kind": 7}},
    ],
)
def test_what_is_no_system_payload_has_no_event(payload: Payload) -> None:
    assert system_event(payload) is None
