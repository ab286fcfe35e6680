"""Cards as values: what is sent of each, what is refused where it is made, and how a chat shows and changes them."""

import enum
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Literal

import msgspec
import pytest
import trio

from bus.records.cards import MOST_UPDATES, CardKept
from bus.steps.job_steps import Carded, CardEmitted
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.talk.test_chat import run
from workers import (
    Action,
    Agent,
    App,
    Approval,
    BadCard,
    BadReply,
    BlockingChat,
    Chat,
    Field,
    Form,
    InboundMessage,
    Info,
    Media,
    MediaItem,
    Option,
    Progress,
)
from workers.handling.context import observe_nothing
from workers.handling.execution import Run, RunEnvironment, run_handler
from workers.talk.cards import Card, card_payload, update_payload
from workers.testing import conversation


class Meal(enum.Enum):
    SOUP = "soup"
    FISH_AND_CHIPS = "fish"


class Booking(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(title="Your name", description="Ann")]
    day: date
    people: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2
    meal: Meal = Meal.SOUP
    seats: list[Literal["window", "door"]] = []
    at: datetime | None = None
    quiet: bool = False


def inner(card: Card) -> dict[str, object]:
    artifact = card_payload(card, "CARD")["artifact"]
    assert isinstance(artifact, dict)
    assert artifact["artifact_id"] == "CARD"
    content = artifact["payload"]
    assert isinstance(content, dict)
    return content


@pytest.mark.pure
def test_each_card_is_sent_as_the_protocol_has_it() -> None:
    assert card_payload(
        Info("Hello", "A title", icon="bell", actions=[Action("go", "Go", "https://x.test")]), "CARD"
    ) == {
        "type": "artifact",
        "artifact": {
            "artifact_id": "CARD",
            "subtype": "info",
            "title": "A title",
            "payload": {
                "body": "Hello",
                "icon": "bell",
                "actions": [{"id": "go", "label": "Go", "url": "https://x.test"}],
            },
        },
    }
    assert inner(Progress(40, body="half", eta_s=3)) == {"percent": 40, "status": "running", "body": "half", "eta_s": 3}
    items = [{"attachment_id": "a", "kind": "image", "alt": "a cat"}]
    assert inner(Media([MediaItem("a", alt="a cat")])) == {"items": items}
    assert inner(App("vote_card", {"question": "?"})) == {"ui": "vote_card", "question": "?"}
    fields = [Field(id="x", label="X", type="select", options=["a", Option("b", "B")])]
    assert inner(Form(fields, submit_label="Send")) == {
        "fields": [
            {
                **{"id": "x", "label": "X", "type": "select", "required": True},
                "options": [{"value": "a", "label": "a"}, {"value": "b", "label": "B"}],
            }
        ],
        "submit_label": "Send",
    }


@pytest.mark.pure
def test_a_form_comes_from_a_class() -> None:
    assert inner(Form(Booking))["fields"] == [
        {"id": "name", "label": "Your name", "type": "text", "required": True, "placeholder": "Ann"},
        {"id": "day", "label": "Day", "type": "date", "required": True},
        {"id": "people", "label": "People", "type": "number", "required": False, "default": 2, "min": 1, "max": 8},
        {
            **{"id": "meal", "label": "Meal", "type": "select", "required": False, "default": "soup"},
            "options": [{"value": "soup", "label": "Soup"}, {"value": "fish", "label": "Fish and chips"}],
        },
        {
            **{"id": "seats", "label": "Seats", "type": "multiselect", "required": False},
            "options": [{"value": "window", "label": "window"}, {"value": "door", "label": "door"}],
        },
        {"id": "at", "label": "At", "type": "datetime", "required": False},
        {"id": "quiet", "label": "Quiet", "type": "boolean", "required": False, "default": False},
    ]


class Bad(msgspec.Struct):
    inner: Booking


class BadChoice(msgspec.Struct):
    level: Literal[1, 2]


NAN = float("nan")


@pytest.mark.pure
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Info(""), "Info.body"),
        (lambda: Info("x", actions=[Action("a", "A"), Action("a", "B")]), "Info.actions"),
        (lambda: Action("a b", "A"), "Action.id"),
        (lambda: Action("a", "A", "javascript:alert(1)"), "Action.url"),
        (lambda: Field(id="a", label="A", type="colour"), "Field.type is one of text, textarea"),
        (lambda: Field(id="a", label="A", type="select"), "'a': a select has one or more options"),
        (lambda: Field(id="a", label="A", options=["x"]), "'a': options are for"),
        (lambda: Form([]), "Form.fields"),
        (lambda: Form(Bad), "Bad.inner has a type that no field has: str, int"),
        (lambda: Form(BadChoice), "choices of BadChoice.level are texts"),
        (lambda: Form(int), "msgspec.Struct class"),  # type: ignore[arg-type]
        (lambda: Approval("x", severity="huge"), "Approval.severity is one of low, medium, high"),
        (lambda: Approval("x", expires_at=datetime(2026, 1, 1)), "time zone"),
        (lambda: Approval("x", arguments={"a": NAN}), "Approval.arguments"),
        (lambda: Approval("x", arguments={"a": "y" * 10_000}), "ask about less"),
        (lambda: Progress(101), "Progress.percent"),
        (lambda: Progress(1, "going"), "Progress.status is one of starting"),
        (lambda: Media([]), "Media.items"),
        (lambda: MediaItem("../etc"), "MediaItem.attachment_id"),
        (lambda: App("vote card"), "App.ui"),
        (lambda: App("vote", {"ui": "other"}), "'ui'"),
        (lambda: App("vote", {"x": object()}), "App holds something that JSON does not have"),
        (lambda: App("vote", {"x": 2**64}), "or a number of over 64 bits"),
        (lambda: App("vote", {"x": "y" * 65_536}), "at most 65536"),
        (lambda: App("vote", [1]), "App.data"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_made(make: Callable[[], object], names: str) -> None:
    with pytest.raises(BadCard, match=names.replace("(", r"\(")) as refused:
        make()
    assert "yyyy" not in str(refused.value)


@pytest.mark.pure
def test_rule_13_what_is_approved_is_what_is_read() -> None:
    hidden = "rm \u202egnp.\u202c\u200b*"
    content = inner(Approval("Delete?\u2066", arguments={"b": "```", "a": hidden}, severity="high"))
    body, details = content["body"], content["details"]
    assert body == "Delete?\\u2066"
    assert isinstance(details, str)
    first, *lines, last = details.split("\n")
    assert (first, last) == ("````json", "````")
    assert details.isprintable() or (set(details) - set("\n") and all(c.isprintable() for c in details if c != "\n"))
    assert json.loads("\n".join(lines)) == {"a": hidden, "b": "```"}, (
        "still the same value, with its hidden parts in sight"
    )
    assert details.index('"a"') < details.index('"b"')
    question = msgspec.msgpack.encode(["CARD", "", body, details])
    assert content["question_hash"] == hashlib.sha256(b"hashee-approval-v1\x00" + question).hexdigest()
    until = datetime(2026, 1, 2, tzinfo=UTC)
    assert inner(Approval("x", expires_at=until))["expires_at"] == "2026-01-02T00:00:00+00:00"


@pytest.mark.pure
def test_an_update_keeps_an_apps_renderer_and_a_card_stays_of_its_kind() -> None:
    assert update_payload("CARD", "app vote_card", 3, {"votes": 1}) == {
        "type": "artifact",
        "ref_artifact": "CARD",
        "based_on_revision": 3,
        "artifact": {"payload": {"ui": "vote_card", "votes": 1}},
    }
    assert update_payload("CARD", "info", 0, Info("new"))["artifact"] == {"payload": {"body": "new"}}
    with pytest.raises(BadCard, match="cannot become 'progress'"):
        update_payload("CARD", "info", 0, Progress(1))
    with pytest.raises(BadCard, match="cannot become 'app other'"):
        update_payload("CARD", "app vote_card", 0, App("other"))
    with pytest.raises(BadCard, match="stays as it was asked"):
        update_payload("CARD", "approval", 0, {"body": "another question"})


def voting(*, then: Callable[[Chat, str], object] | None = None) -> tuple[Agent, list[str]]:
    agent, ids = Agent(), list[str]()

    @agent.on_message()
    async def vote(_message: InboundMessage, chat: Chat) -> None:
        sent = await chat.reply(App("vote_card", {"votes": 0}))
        ids.append(sent.id)
        await chat.reply("between")
        for votes in (1, 2):
            await chat.update(sent, {"votes": votes})

    return agent, ids


def shown(bus: MemoryBus) -> list[tuple[str, object]]:
    return [(place, reply.payload.get("based_on_revision")) for place, reply in bus.replies]


async def test_a_card_and_its_updates_go_out_in_order_each_based_on_the_one_before() -> None:
    agent, ids = voting()
    bus = MemoryBus()
    await run(agent, bus)
    assert ids == ["card-message-1-0"]
    assert shown(bus) == [("0", None), ("1", None), ("2", 0), ("3", 1)]
    assert [move.kind for move in bus.moves] == ["app vote_card", "", ""]
    assert bus.looked_up == [], "what this run has shown is known"


async def test_a_second_run_sends_the_rest_under_the_id_that_is_kept_and_the_revision_that_follows() -> None:
    agent, ids = voting()
    kept = {"of before": CardKept(1, "message-1", "0", "app vote_card")}
    bus = MemoryBus(emitted_before=frozenset({"0", "1", "2"}), cards_before={"0": "of before"}, cards=kept)
    one = job_of(attempt=2, deliveries=2)
    environment = RunEnvironment(agent=agent, outlet=bus, threads=trio.CapacityLimiter(4), observe=observe_nothing)
    await run_handler(environment, Run(one, (one.message,), bus.emitted_before, cards=bus.cards_before), lambda: None)
    assert ids == ["of before"]
    assert shown(bus) == [("3", 1)]


async def test_an_update_that_finds_another_revision_is_made_anew_for_it() -> None:
    agent, _ = voting()
    moved = CardEmitted(Carded.MOVED, 5)
    bus = MemoryBus(card_answers=[CardEmitted(Carded.QUEUED), moved])
    await run(agent, bus)
    assert shown(bus) == [("0", None), ("1", None), ("2", 0), ("3", 1)]
    assert bus.looked_up == ["card-message-1-0"]


@pytest.mark.parametrize("revision", [None, MOST_UPDATES])
async def test_a_card_of_nobody_and_one_that_had_all_its_updates_are_refused(revision: int | None) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(_message: InboundMessage, chat: Chat) -> None:
        await chat.update("another's", {"x": 1})

    cards = {} if revision is None else {"another's": CardKept(revision, "j", "0", "info")}
    with pytest.raises(BadCard, match="no such card" if revision is None else "at most 100 updates"):
        await run(agent, MemoryBus(cards=cards))


async def test_a_card_whose_job_was_lost_shows_nothing_more() -> None:
    agent, _ = voting()
    bus = MemoryBus(card_answers=[CardEmitted(Carded.FENCED)])
    assert not await run(agent, bus)
    assert bus.replies == []


async def test_what_is_no_text_and_no_card_is_refused() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(_message: InboundMessage, chat: Chat) -> None:
        await chat.reply(7)  # type: ignore[call-overload]

    with pytest.raises(BadReply, match="a text is a str"):
        await run(agent, MemoryBus())


async def test_a_sync_handler_shows_cards_too_and_the_test_kit_reads_them() -> None:
    agent = Agent()

    @agent.on_message("text")
    def begin(_message: InboundMessage, chat: BlockingChat) -> None:
        card = chat.reply(Info("1", actions=[Action("more", "More")]))
        chat.update(card, Info("2"))

    @agent.on_message("artifact")
    def more(message: InboundMessage, chat: BlockingChat) -> None:
        artifact = message.payload["artifact"]
        assert isinstance(artifact, dict)
        chat.update(artifact["ref_artifact"], Info("3"))

    chat = conversation(agent)
    card, update = await chat.say("hi")
    assert (card.card["body"], card.revision, update.card["body"], update.revision) == ("1", 0, "2", 1)
    assert card.card_id == update.card_id
    [later] = await chat.answer(card.card_id, {"action": "more"})
    assert (later.card, later.card_id, later.revision) == ({"body": "3"}, card.card_id, 2)
    assert await chat.run_again() == []


async def test_replies_quote_and_mention() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("quoted", quote=True)
        await chat.reply("another", quote="message-7", mention=message)
        await chat.reply("@<U:ben> and all", mention=["ben", "ann"])
        await chat.reply(Info("card"), quote=message, mention="ben")

    bus = MemoryBus()
    await run(agent, bus)
    quoted, another, both, card = [reply.payload for _, reply in bus.replies]
    assert quoted == {"type": "text", "text": "quoted", "reply_to": {"message_id": "message-1"}}
    assert another == {
        **{"type": "text", "text": "@<U:person> another"},
        **{"reply_to": {"message_id": "message-7"}, "mentions": ["person"]},
    }
    assert (both["text"], both["mentions"]) == ("@<U:ann> @<U:ben> and all", ["ben", "ann"])
    assert (card["reply_to"], card["mentions"]) == ({"message_id": "message-1"}, ["ben"])


async def test_an_answer_goes_to_the_handler_of_what_it_answers() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def begin(message: InboundMessage, chat: Chat) -> None:
        await chat.reply(App("vote_card", {"votes": 0}))
        await chat.reply(Form([Field(id="a", label="A")]))

    @agent.on_artifact_response("vote_card")
    async def vote(chat: Chat) -> None:
        await chat.reply("a vote")

    @agent.on_artifact_response("form")
    async def form(chat: Chat) -> None:
        await chat.reply("a form")

    @agent.on_artifact_response()
    async def other(chat: Chat) -> None:
        await chat.reply("something else")

    chat = conversation(agent)
    vote_card, form_card = await chat.say("begin")
    for card_id, expected in (
        (vote_card.card_id, "a vote"),
        (form_card.card_id, "a form"),
        ("no card", "This question is no longer open."),
    ):
        [said] = await chat.answer(card_id, {"action": "x"})
        assert said.text == expected
