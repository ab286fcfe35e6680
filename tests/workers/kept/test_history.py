"""What was said, as a model or a handler reads it: whole turns of both sides, and a word for what is no text."""

import msgspec
import pytest

from bus.records.records import InboundMessage, Payload, Reply
from workers.kept.history import (
    MOST_EXCHANGE_BYTES,
    MOST_EXCHANGE_FILES,
    MOST_FILE_BYTES,
    MOST_TURN_BYTES,
    MOST_TURN_FILES,
    History,
    ToolUse,
    Turn,
    decode_exchange,
    encode_exchange,
    turn_of,
    turn_of_reply,
)

pytestmark = pytest.mark.pure


def inbound(payload: Payload) -> InboundMessage:
    return InboundMessage(
        message_id="m",
        conversation_id="c",
        conversation_type="h2a",
        sender_id="ann",
        sender_type="human",
        sender_display_name="Ann",
        payload=payload,
    )


def said(payload: Payload, kind: str = "message") -> Reply:
    return Reply(kind=kind, content_type=str(payload.get("type")), payload=payload)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"type": "text", "text": "hello"}, "hello"),
        ({"type": "text", "content": "as it was written before"}, "as it was written before"),
        ({"type": "image", "attachment_id": "a", "alt": "a cat"}, "[image: a cat]"),
        ({"type": "audio", "attachment_id": "a", "transcript": "good day"}, "[audio: good day]"),
        ({"type": "file", "attachment_id": "a", "filename": "notes.txt", "mime": "text/plain"}, "[file: notes.txt]"),
        ({"type": "video", "attachment_id": "a"}, "[video]"),
        (
            {"type": "artifact", "artifact": {"subtype": "response", "payload": {"decision": "approved"}}},
            "[answer: approved]",
        ),
        (
            {"type": "artifact", "artifact": {"subtype": "response", "payload": {"values": {"day": "2026-12-01"}}}},
            '[answer: {"day":"2026-12-01"}]',
        ),
    ],
)
def test_what_somebody_says_has_a_text(payload: Payload, text: str) -> None:
    turn = turn_of(inbound(payload), 7)
    assert (turn.role, turn.text, turn.sender_name, turn.at_ms) == ("user", text, "Ann", 7)
    assert text not in repr(turn)
    assert decode_exchange(encode_exchange([turn])) == [turn]


def test_what_we_say_has_one_and_a_streams_beginning_and_an_update_have_none() -> None:
    card: Payload = {
        "type": "artifact",
        "artifact": {"subtype": "info", "title": "Lunch", "payload": {"body": "Soup or stew?"}},
    }
    turns = [turn_of_reply(said({"type": "text", "text": "done"}, "stream_done"), 1), turn_of_reply(said(card), 2)]
    assert [(turn.role, turn.text) for turn in turns if turn] == [
        ("assistant", "done"),
        ("assistant", "[info]\nLunch\nSoup or stew?"),
    ]
    assert turn_of_reply(said({}, "stream_start"), 3) is None
    update: Payload = {"type": "artifact", "ref_artifact": "card", "artifact": {"payload": {}}}
    assert turn_of_reply(said(update), 4) is None


def test_a_long_text_is_cut_between_characters_and_says_so() -> None:
    texts = ["x" + "ä" * MOST_TURN_BYTES, "x" * MOST_TURN_BYTES]
    [long, short] = decode_exchange(
        encode_exchange([turn_of(inbound({"type": "text", "text": one}), 1) for one in texts])
    )
    assert long.is_cut
    assert long.text == "x" + "ä" * ((MOST_TURN_BYTES - 1) // 2)
    assert not short.is_cut


def test_what_belongs_together_has_a_bound_too() -> None:
    turns = [turn_of(inbound({"type": "text", "text": "x" * MOST_TURN_BYTES}), at_ms) for at_ms in range(100)]
    kept = encode_exchange(turns)
    assert len(kept) < MOST_EXCHANGE_BYTES + 100 * 100
    assert [turn.at_ms for turn in decode_exchange(kept) if turn.is_cut] == list(range(100))


def with_files(count: int, at_ms: int = 0, **others: object) -> Turn:
    message = inbound({"type": "image", "attachment_id": "a", "alt": "a cat" * 200, "thumbnail": "x" * 30_000})
    attachments: list[Payload] = [{"attachment_id": f"file-{at}", "filename": "a", **others} for at in range(count)]
    return turn_of(msgspec.structs.replace(message, attachments=attachments), at_ms)


def test_how_files_are_opened_is_kept_in_bounds() -> None:
    assert turn_of(inbound({"type": "image", "attachment_id": "a"}), 0).shows == {}, "nothing to open: nothing to show"
    turn = with_files(MOST_TURN_FILES + 1)
    assert [one["attachment_id"] for one in turn.attachments] == [f"file-{at}" for at in range(MOST_TURN_FILES)]
    assert (turn.shows["type"], len(str(turn.shows["alt"])), "thumbnail" in turn.shows) == ("image", 500, False)
    assert decode_exchange(encode_exchange([turn]))[0].attachments == turn.attachments
    assert with_files(3, filename="x" * MOST_FILE_BYTES).attachments == ()
    several = decode_exchange(encode_exchange([with_files(MOST_TURN_FILES, at_ms) for at_ms in range(8)]))
    assert sum(len(one.attachments) for one in several) == MOST_EXCHANGE_FILES
    assert {len(one.attachments) for one in several} == {MOST_EXCHANGE_FILES // 8}


def test_a_handler_changes_nothing_of_a_turn_that_later_runs_are_given() -> None:
    """What is decoded once is shared by all runs of a worker (bus/steps/opened.py)."""
    use = ToolUse(name="weather", arguments="{}", result="rain")
    for turn in (Turn(role="user", text=""), msgspec.structs.replace(with_files(2), tools=(use,))):
        [decoded] = decode_exchange(encode_exchange([turn]))
        assert decoded == turn
        assert [type(one) for one in (decoded.tools, decoded.grants)] == [tuple] * 2
        decoded.shows["type"] = "changed"
        for attachment in decoded.attachments:
            attachment["attachment_id"] = "changed"
        assert (decoded.shows, decoded.attachments) == (turn.shows, turn.attachments)


def test_a_turn_without_files_says_nothing_of_them() -> None:
    kept = encode_exchange([turn_of(inbound({"type": "text", "text": "hello"}), 7)])
    assert not [name for name in (b"attachments", b"shows") if name in kept]


def test_a_history_is_a_sequence_that_a_model_takes() -> None:
    turns = [turn_of(inbound({"type": "text", "text": str(number)}), number) for number in range(5)]
    history = History(turns)
    assert history.messages[:2] == [{"role": "user", "content": "0"}, {"role": "user", "content": "1"}]
    assert list(history.last(2)) == turns[3:] == list(history[-2:])
    assert list(history.last(0)) == []
    assert (len(history), history[0], repr(history)) == (5, turns[0], "History(5 turns)")
