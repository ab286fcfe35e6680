"""What a person's device shows of cards: each once, its newest revision, and all of it as text on a terminal."""

import hashlib

import pytest

from sandbox.cards import Cards
from sandbox.drawing import drawn

pytestmark = pytest.mark.pure


def card(card_id: str, subtype: str, **payload: object) -> dict[str, object]:
    artifact = {"artifact_id": card_id, "subtype": subtype, "title": "Title", "payload": payload}
    return {"type": "artifact", "artifact": artifact}


def update(card_id: str, based_on: object, **payload: object) -> dict[str, object]:
    return {
        "type": "artifact",
        "ref_artifact": card_id,
        "based_on_revision": based_on,
        "artifact": {"payload": payload},
    }


def test_a_lower_revision_is_passed_over_and_a_higher_one_is_shown() -> None:
    cards = Cards()
    assert cards.read(card("a", "info", body="zero")) is not None
    assert cards.read(card("a", "info", body="again")) is None
    assert cards.read(update("unknown", 0, body="x")) is None
    for based_on, shown in ((0, 1), (4, 5), (3, None), (4, None), (None, None), (5, 6)):
        read = cards.read(update("a", based_on, body=f"based on {based_on}"))
        assert (None if read is None else read.revision) == shown
    assert cards.shown["a"].payload == {"body": "based on 5"}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (card("a", "info", body="B", actions=[{"id": "go", "label": "Go"}]), "[info] Title\nB\n(Go: go)"),
        (card("a", "approval", body="B", details="D"), "[approval] Title\nB\nD\n(approve) (reject)"),
        (card("a", "progress", percent=40, status="running"), "[progress] Title\n40 % running"),
        (card("a", "app", ui="vote", yes=1), "[vote] Title\nyes: 1"),
        (
            card(
                "a",
                "form",
                fields=[{"id": "x", "label": "X", "type": "select", "options": [{"value": "1"}, {"value": "2"}]}],
            ),
            "[form] Title\nX (x: 1 | 2)",
        ),
        (card("a", "form", fields="none"), "[form] Title"),
    ],
)
def test_it_reads_as_text(payload: dict[str, object], text: str) -> None:
    shown = Cards().read(payload)
    assert shown is not None
    assert shown.text == text


def test_the_answer_to_an_approval_is_to_what_is_shown() -> None:
    """PROTOCOL §4.1, over the texts that the device shows and not over what the sender says that they are."""
    shown = Cards().read(card("a", "approval", body="B", details="D", question_hash="0" * 64))
    assert shown is not None
    question = b"\x94\xa1a\xa5Title\xa1B\xa1D"
    assert shown.question_hash == hashlib.sha256(b"hashee-approval-v1\x00" + question).hexdigest()


def test_what_is_no_card_shows_nothing() -> None:
    nothing: list[dict[str, object]] = [{"type": "artifact"}, {"artifact": "x"}, {"artifact": {"payload": {}}}]
    for payload in nothing:
        assert Cards().read(payload) is None


def test_a_call_of_a_tool_is_drawn_with_its_name_and_arguments() -> None:
    shown = Cards().read(card("a", "tool_call", tool_name="free_slots", arguments={"day": "2026-12-01"}))
    assert shown is not None
    assert drawn(shown) == ["[tool_call] Title", 'free_slots {"day":"2026-12-01"}']
    assert shown.text == "\n".join(drawn(shown))
