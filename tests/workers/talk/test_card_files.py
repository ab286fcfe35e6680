"""Cards that people have written down: what is right becomes the card that a handler would make, what is wrong is named."""

import json

import pytest

from workers import Action, App, Approval, BadCard, Field, Form, Info, Media, MediaItem, Progress
from workers.talk.card_files import card_of
from workers.talk.cards import Card, card_payload

pytestmark = pytest.mark.pure

CARDS: tuple[Card, ...] = (
    Info("It is done.", title="Deployed", icon="check", actions=[Action("log", "Log", "https://example.org")]),
    Form(
        [
            Field(id="day", label="Day", type="date"),
            Field(id="who", label="Who", type="select", options=["Ann", "Ben"]),
        ],
        "Book",
        "Send",
    ),
    Progress(50, "running", title="Deploying", body="half", eta_s=3.5),
    Media([MediaItem("attachment-1", "image", "a cat")], "Look"),
    App("vote_card", {"options": ["soup"]}, "Lunch"),
)
CARD_ID = "01JB0000000000000000000000"


def written(**given: object) -> bytes:
    return json.dumps(given).encode()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: type(card).__name__)
def test_what_is_sent_of_a_card_may_be_written_down_and_sent_again(card: Card) -> None:
    sent = card_payload(card, CARD_ID)
    artifact = sent["artifact"]
    assert isinstance(artifact, dict)
    text = json.dumps({name: value for name, value in artifact.items() if name != "artifact_id"})
    assert card_payload(card_of(text.encode()), CARD_ID) == sent


def test_an_approval_is_hashed_when_it_is_sent() -> None:
    card = card_of(
        written(
            subtype="approval", payload={"body": "Deploy?", "severity": "high", "expires_at": "2030-01-01T00:00:00Z"}
        )
    )
    assert isinstance(card, Approval)
    assert "question_hash" in json.dumps(card_payload(card, CARD_ID))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"no json", "JSON object"),
        (b"[]", "JSON object"),
        (written(subtype="poem", payload={}), "approval, form"),
        (written(subtype="info", payload="body"), "payload"),
        (written(subtype="info", payload={"body": "x", "colour": "red"}), "colour"),
        (written(subtype="info", payload={"body": "x"}, artifact_id="1"), "artifact_id"),
        (written(subtype="info", payload={"body": "x", "title": "in the wrong place"}), "title"),
        (written(subtype="info", title=7, payload={"body": "x"}), "title"),
        (written(subtype="info", payload={"body": 7}), "body"),
        (written(subtype="info", payload={}), "body"),
        (written(subtype="approval", payload={"body": "x", "question_hash": "0"}), "question_hash"),
        (written(subtype="progress", payload={"percent": 200}), "percent"),
        (written(subtype="form", payload={"fields": []}), "fields"),
        (written(subtype="form", payload={"fields": [{"id": "a"}]}), "label"),
        (written(subtype="form", payload={"fields": 7, "submit_label": 7}), "submit_label"),
        (written(subtype="app", payload={"options": []}), "App.ui"),
        (written(subtype="info", payload={"body": "x" * 70_000}), "bytes"),
    ],
)
def test_what_is_wrong_is_named(text: bytes, names: str) -> None:
    with pytest.raises(BadCard, match=names):
        card_of(text)
