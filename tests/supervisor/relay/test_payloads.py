"""Payloads on their way to a handler, and the ids of what goes back."""

import pytest

from bus.records import ulid
from bus.records.reply_ids import reply_id, reply_message_id
from crypto.envelope import V1_2, Envelope
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.relay.payloads import (
    conversation_kind,
    inbound_message,
    message_ms,
    payload_type_of,
)

pytestmark = pytest.mark.pure

FRAME = MessageNew(
    conversation_id="frame's conversation",
    message_id="m1",
    sender_id="frame's sender",
    sender_type="human",
    content_type="text",
    encrypted_payload="",
    conversation_seq=1,
    created_at="2026-01-01T00:00:00Z",
    sender_display_name="Ada",
)
ENVELOPE = Envelope(V1_2, "conversation", "agent", "person", "phone", "cmid", b"", b"", (), b"", b"")


def message(payload: dict[str, object]) -> object:
    return inbound_message(FRAME, ENVELOPE, payload)


def test_the_signed_word_wins_over_the_frames() -> None:
    seen = inbound_message(FRAME, ENVELOPE, {"type": "text", "text": "hello"})
    assert (seen.conversation_id, seen.sender_id, seen.client_message_id) == ("conversation", "person", "cmid")
    assert (seen.message_id, seen.sender_display_name, seen.envelope_version) == ("m1", "Ada", V1_2)
    assert seen.text == "hello"


def test_older_names_are_accepted_and_newer_ones_win() -> None:
    older = inbound_message(FRAME, ENVELOPE, {"type": "text", "content": "hi", "quote_id": "m0"})
    assert (older.text, older.reply_to) == ("hi", "m0")
    assert "content" not in older.payload
    both = inbound_message(
        FRAME, ENVELOPE, {"text": "new", "content": "old", "reply_to": {"message_id": "m2"}, "quote_id": "m0"}
    )
    assert (both.text, both.reply_to) == ("new", "m2")


@pytest.mark.parametrize(
    ("payload", "field", "expected"),
    [
        ({"mentions": ["a", 7, None, "b"]}, "mentions", ["a", "b"]),
        ({"mentions": "everybody"}, "mentions", []),
        ({"mention_all": True}, "mention_all", True),
        ({"mention_all": 1}, "mention_all", False),
        ({"hop_count": 3}, "hop_count", 3),
        ({"hop_count": True}, "hop_count", 0),
        ({"hop_count": -1}, "hop_count", 0),
        ({"hop_count": 10**30}, "hop_count", 2**31 - 1),
        ({"hop_count": "3"}, "hop_count", 0),
        ({"hop_count": 3.0}, "hop_count", 3),
        ({"hop_count": 1e300}, "hop_count", 2**31 - 1),
        ({"reply_to": "m2"}, "reply_to", None),
        ({"reply_to": {"message_id": 7}}, "reply_to", None),
        ({"attachments": [{"attachment_id": "a"}, "b"]}, "attachments", [{"attachment_id": "a"}]),
        ({"attachments": {"attachment_id": "a"}}, "attachments", []),
        ({"text": 7}, "text", ""),
    ],
)
def test_what_has_the_wrong_shape_is_left_out(payload: dict[str, object], field: str, expected: object) -> None:
    assert getattr(message(payload), field) == expected


def test_an_artifact_response_is_of_a_person_in_a_conversation_of_two() -> None:
    answer = ArtifactResponse("c", "m", "person", "", 1, "2026-01-01T00:00:00Z")
    seen = inbound_message(answer, ENVELOPE, {})
    assert (seen.conversation_type, seen.sender_type, seen.sender_display_name) == ("h2a", "human", None)


@pytest.mark.parametrize(
    ("said", "kind"), [("group", "group"), ("h2h", "h2h"), ("h2a", "h2a"), (None, "h2a"), ("of the future", "h2a")]
)
def test_the_kind_of_a_conversation_is_one_of_three(said: str | None, kind: str) -> None:
    frame = MessageNew("c", "m", "s", "human", "text", "", 1, "", conversation_type=said)
    assert conversation_kind(frame) == kind


def test_a_payload_without_a_type_is_of_unknown_type() -> None:
    assert payload_type_of({}) == "unknown"
    assert payload_type_of({"type": ["text"]}) == "unknown"
    assert payload_type_of({"type": "image"}) == "image"


def test_the_time_of_a_message_is_in_its_id_or_nowhere() -> None:
    assert message_ms(ulid.make(1234, bytes(10))) == 1234
    assert message_ms("not a ULID") == 0


def test_a_reply_has_the_same_id_in_every_run_and_another_at_every_place_and_job() -> None:
    ids = {reply_id(b"key", job, place) for job in ("m1", "m10") for place in ("0", "1", "00")}
    assert len(ids) == 6
    assert reply_id(b"key", "m1", "0") in ids
    assert reply_id(b"other key", "m1", "0") not in ids
    # job and place are told apart: "m1" at "0" is not "m10" at ""
    assert reply_id(b"key", "m1", "0") != reply_id(b"key", "m10", "")


def test_a_replys_message_id_is_a_ulid_of_the_inbound_messages_time() -> None:
    made = reply_message_id(reply_id(b"key", "m1", "0"), 1234)
    assert ulid.time_ms(made) == 1234
    assert made == reply_message_id(reply_id(b"key", "m1", "0"), 1234)
