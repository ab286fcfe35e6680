"""The frames of PROTOCOL §2 and §6: what is read, what is refused, and that nothing of their content leaks."""

import json
import re

import pytest

from supervisor.relay import frames
from supervisor.relay.frames import MalformedFrame, PlatformEvent, UnknownFrame, decode_from_relay, encode

pytestmark = pytest.mark.pure

MESSAGE = {
    "type": "message.new",
    "conversation_id": "c",
    "message_id": "m",
    "sender_id": "u",
    "sender_type": "human",
    "content_type": "text",
    "encrypted_payload": "AAAA",
    "conversation_seq": 7,
    "created_at": "2026-01-01T00:00:00Z",
}


def test_a_message_is_read_with_the_documented_fields_alone() -> None:
    frame = decode_from_relay(json.dumps(MESSAGE))
    assert isinstance(frame, frames.MessageNew)
    assert (frame.conversation_seq, frame.conversation_type, frame.created_at) == (7, None, MESSAGE["created_at"])


def test_unknown_fields_are_passed_over() -> None:
    assert isinstance(decode_from_relay(json.dumps({**MESSAGE, "later": {"x": 1}})), frames.MessageNew)


def test_a_frame_of_an_unknown_type_is_a_value_with_a_short_name() -> None:
    frame = decode_from_relay(json.dumps({"type": "z" * 500, "secret": "s"}))
    assert frame == UnknownFrame("z" * 64)


@pytest.mark.parametrize("name", sorted(frames.PASSED_ON))
def test_events_of_which_only_the_name_is_documented_come_whole(name: str) -> None:
    assert decode_from_relay(json.dumps({"type": name, "a": [1]})) == PlatformEvent(name, {"a": [1]})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"text"', '{"no":"type"}', '{"type":5}', b"\xff\xfe", '"\ud800"', "{}" + " x"],
)
def test_what_is_no_frame_is_malformed(text: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_from_relay(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("conversation_seq", "PRIVATE"),
        ("conversation_seq", -1),
        ("conversation_seq", 2**53),
        ("conversation_seq", 1.5),
        ("message_id", ["PRIVATE"]),
        ("encrypted_payload", None),
        ("created_at", 5),
    ],
)
def test_a_wrong_field_is_named_without_its_value(field: str, value: object) -> None:
    with pytest.raises(MalformedFrame) as malformed:
        decode_from_relay(json.dumps({**MESSAGE, field: value}))
    assert malformed.value.frame_type == "message.new"
    assert field in str(malformed.value)
    assert "PRIVATE" not in repr(malformed.value)


@pytest.mark.parametrize("field", [name for name in MESSAGE if name != "type"])
def test_each_documented_field_of_a_message_is_required(field: str) -> None:
    with pytest.raises(MalformedFrame):
        decode_from_relay(json.dumps({name: MESSAGE[name] for name in MESSAGE if name != field}))


def test_the_older_name_of_a_revoked_relation_is_accepted() -> None:
    frame = decode_from_relay('{"type":"relation.terminated","payload":{"user_id":"u"}}')
    assert frame == frames.RelationRevoked(frames.Relation("u"))


def test_a_relation_has_its_fields_in_its_payload() -> None:
    frame = decode_from_relay(
        '{"type":"relation.established","payload":{"user_id":"u","scopes":["pay"],"public_key":"AA=="}}'
    )
    assert frame == frames.RelationEstablished(frames.Relation("u", scopes=("pay",), public_key="AA=="))
    with pytest.raises(MalformedFrame):
        decode_from_relay('{"type":"relation.established","user_id":"u"}')


def test_absent_optional_fields_are_left_out_of_what_is_sent() -> None:
    assert encode(frames.TypingStart("c")) == '{"type":"typing.start","conversation_id":"c"}'
    assert encode(frames.MessageError("429", "id", retry_after=1.5)) == (
        '{"type":"message.error","code":"429","client_message_id":"id","retry_after":1.5}'
    )


def test_the_token_of_an_auth_frame_is_sent_and_never_shown() -> None:
    frame = frames.Auth("hsk_secret", agent_id="a")
    assert json.loads(encode(frame)) == {"type": "auth", "token": "hsk_secret", "agent_id": "a"}
    assert "hsk_secret" not in repr(frame)
    assert "hsk_secret" not in f"{frame}"


def test_agents_and_people_are_read_by_their_own_vocabulary() -> None:
    answer = '{"type":"artifact_response","client_message_id":"i","conversation_id":"c","encrypted_payload":"A"}'
    assert isinstance(frames.decode_from_person(answer), frames.ArtifactAnswer)
    assert frames.decode_from_agent(answer) == UnknownFrame("artifact_response")
    delta = encode(frames.StreamDelta("s", "c", 0, "A", sender_id="agent"))
    assert isinstance(frames.decode_for_person(delta), frames.StreamDelta)
    assert decode_from_relay(delta) == UnknownFrame("stream.delta")


def test_what_is_encoded_is_read_back_equal() -> None:
    done = frames.StreamDone("s", "c", "i", "text", "A")
    assert frames.decode_from_agent(encode(done)) == done
    event = PlatformEvent("group.updated", {"a": 1})
    assert decode_from_relay(encode(event)) == event


@pytest.mark.parametrize("text", ["x" * 129, "", "zwei\n", "é", "\x7f", 7, None])
@pytest.mark.parametrize("field", ["message_id", "conversation_id", "sender_id"])
def test_an_id_is_1_to_128_printable_ascii_characters(field: str, text: object) -> None:
    with pytest.raises(MalformedFrame, match=re.escape(f"$.{field}")):
        decode_from_relay(json.dumps({**MESSAGE, field: text}))
    assert isinstance(decode_from_relay(json.dumps({**MESSAGE, field: "x" * 128})), frames.MessageNew)


@pytest.mark.parametrize(
    "frame",
    [
        frames.GroupKeyRotated("x" * 70_000, 1),
        frames.MessageAck("x" * 129, "m", 1),
        frames.MessageError("code", "x" * 129),
        frames.RelationEstablished(frames.Relation("x" * 129)),
        frames.MessageRecalled("m", "c", "\n"),
    ],
)
def test_every_frame_with_an_id_that_is_none_is_malformed(frame: frames.FromRelay) -> None:
    with pytest.raises(MalformedFrame):
        decode_from_relay(encode(frame))


@pytest.mark.parametrize("unreadable", [r'"\ud800"', "1e400", "[" * 3000 + "]" * 3000, "NaN", '"\x01"', "9" * 5000])
def test_what_cannot_be_read_of_a_frame_is_absent_where_it_is_not_needed(unreadable: str) -> None:
    """Else a person who calls himself half a character sends nothing, and hides the end of his own relation."""
    whole = json.dumps(MESSAGE)
    assert decode_from_relay(whole[:-1] + f', "sender_display_name": {unreadable}}}') == decode_from_relay(whole)
    ended = '{"type": "relation.revoked", "payload": {"user_id": "u", "display_name": ' + unreadable + "}}"
    assert decode_from_relay(ended) == frames.RelationRevoked(frames.Relation("u"))
    event = '{"type": "group.updated", "a": 1, "b": ' + unreadable + "}"
    assert decode_from_relay(event) == PlatformEvent("group.updated", {"a": 1})
    with pytest.raises(MalformedFrame):
        decode_from_relay(whole.replace('"m"', unreadable))


@pytest.mark.parametrize("misfit", ["null", "7", "9223372036854775808", "-1", "true", "[]", "{}", '[{"a": 1}]', '""'])
def test_what_does_not_fit_is_absent_too_where_it_is_not_needed(misfit: str) -> None:
    """Else a relay that says null for an empty list, or a number for a name, hides messages and the ends of relations."""
    whole = json.dumps(MESSAGE)
    for field in ("conversation_type", "sender_device_id", "sender_display_name"):
        said = decode_from_relay(whole[:-1] + f', "{field}": {misfit}}}')
        assert said in (decode_from_relay(whole), decode_from_relay(whole[:-1] + f', "{field}": ""}}'))
    ended = '{"type": "relation.revoked", "payload": {"user_id": "u", "display_name": 7, "scopes": %s, "status": %s}}'
    said = decode_from_relay(ended % ("null" if misfit == "[]" else misfit, "[]" if misfit == '""' else misfit))
    assert said == frames.RelationRevoked(frames.Relation("u"))
    assert decode_from_relay('{"type": "auth.error", "reason": "invalid_token", "message": null, "i18n_key": 7}') == (
        frames.AuthError("invalid_token")
    )
    assert decode_from_relay(
        '{"type": "message.error", "code": "429", "client_message_id": "i", "retry_after": "5"}'
    ) == (frames.MessageError("429", "i"))


def test_an_error_names_nothing_or_what_it_names() -> None:
    """One that names something else than an id is not taken for one of what has no id, such as a recall."""
    assert decode_from_relay('{"type": "message.error", "code": "x", "client_message_id": null}') == (
        frames.MessageError("x")
    )
    with pytest.raises(MalformedFrame, match=re.escape("$.client_message_id")):
        decode_from_relay('{"type": "message.error", "code": "x", "client_message_id": 7, "message": null}')


@pytest.mark.parametrize("field", ["message_id", "conversation_seq", "encrypted_payload"])
def test_of_several_misfits_the_first_that_is_found_is_named(field: str) -> None:
    many = {**MESSAGE, field: {}, "sender_display_name": 7, "conversation_type": []}
    with pytest.raises(MalformedFrame) as malformed:
        decode_from_relay(json.dumps(many))
    assert malformed.value.frame_type == "message.new"
    assert malformed.value.field in (f"$.{field}", "$.sender_display_name", "$.conversation_type")
