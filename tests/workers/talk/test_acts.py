"""What a handler does to messages that are there: takes its own back, shows an emoji; and who takes part."""

from collections.abc import Callable

import msgspec
import pytest

from bus.records.cards import CardKept
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.talk.test_chat import run
from workers import Agent, BadCard, BadReply, BlockingChat, Chat, InboundMessage, Info
from workers.talk.emoji import is_one_emoji
from workers.testing import conversation


def acts(bus: MemoryBus) -> list[tuple[str, str, object]]:
    return [(place, reply.kind, reply.payload) for place, reply in bus.replies if reply.kind in ("recall", "reaction")]


async def test_what_was_sent_is_taken_back_by_what_reply_returned_or_by_its_id() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        text = await chat.reply("oops")
        await text.recall()
        long = await chat.reply("x" * 100_001, key="long")
        await chat.recall(long.id)
        card = await chat.reply(Info("card"))
        await chat.recall(card)
        await chat.recall("of-an-earlier-job")

    bus = MemoryBus(cards={"of-an-earlier-job": CardKept(3, "job-0", "key:card", "info")})
    await run(agent, bus)
    places = [
        ("message-1", "0"),
        ("message-1", "key:long"),
        ("message-1", "key:long~2"),
        ("message-1", "4"),
        ("job-0", "key:card"),
    ]
    assert [(one["job_id"], one["place"]) for _, _, one in acts(bus) if isinstance(one, dict)] == places
    assert [place for place, *_ in acts(bus)] == ["1", "2", "3", "5", "6"]


async def test_a_sync_handler_takes_back_and_reacts_too() -> None:
    agent = Agent()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        chat.reply("oops").recall()
        chat.react("👍")
        chat.react(None, to="message-7")

    bus = MemoryBus()
    await run(agent, bus)
    assert acts(bus) == [
        ("1", "recall", {"job_id": "message-1", "place": "0"}),
        ("2", "reaction", {"message_id": "message-1", "emoji": "👍"}),
        ("3", "reaction", {"message_id": "message-7", "emoji": None}),
    ]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda chat: chat.recall("01ARZ3NDEKTSV4RRFFQ69G5FAV"), BadCard),
        (lambda chat: chat.react("ok"), BadReply),
        (lambda chat: chat.react("👍👍"), BadReply),
    ],
)
async def test_what_nobody_can_take_back_or_show_is_refused(
    act: Callable[[Chat], object], error: type[Exception]
) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await act(chat)  # type: ignore[misc]

    with pytest.raises(error):
        await run(agent, MemoryBus())


@pytest.mark.pure
def test_one_emoji_is_one_grapheme() -> None:
    family, thumb, flag, wales = (
        "👨‍👩‍👧‍👦",
        "👍🏽",
        "🇩🇪",
        "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    )
    for one in ("👍", "❤️", "☺", "©️", "‼️", "1️⃣", "#⃣", "👩‍💻", thumb, flag, family, wales):
        assert is_one_emoji(one), one
    for other in ("", "a", "ok", "👍👍", "👍 ", "🇩", "🇩🇪🇩🇪", "1", "‍", "👍‍", "\u202e", "\U0001f3fd" * 2, "👍" * 20, 7):
        assert not is_one_emoji(other), other


async def test_the_test_kit_tells_acts_from_replies() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await (await chat.reply("oops")).recall()
        await chat.react("👍")

    chat = conversation(agent)
    assert [said.text for said in await chat.say("hi")] == ["oops"]
    assert [kind for kind, _ in chat.acts] == ["recall", "reaction"]


async def test_members_are_those_of_the_group_else_the_person() -> None:
    agent, seen = Agent(), list[tuple[str, ...]]()

    @agent.on_message()
    async def look(message: InboundMessage, chat: Chat) -> None:
        seen.append(chat.members)

    alone = job_of()
    metadata: dict[str, object] = {"group_id": "g", "members": ["ann", "ben", "agent"]}
    together = msgspec.structs.replace(alone.message, conversation_type="group", group_metadata=metadata)
    await run(agent, MemoryBus(), alone)
    await run(agent, MemoryBus(), msgspec.structs.replace(alone, message=together))
    assert seen == [("person",), ("ann", "ben", "agent")]


async def test_rule_17_a_text_is_named_by_the_id_under_which_it_goes_out_and_taken_back_by_it_from_a_later_job() -> (
    None
):
    agent, ids = Agent(), list[str]()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        ids.append((await chat.reply("one")).id)
        long = await chat.reply("x" * 100_001, key="long")
        ids.append(long.id)
        there = await chat.to("other").reply("there")
        ids.append(there.id)
        card = await chat.reply(Info("card"))
        await long.recall()
        await chat.recall(ids[0])
        await chat.recall(ids[1])
        await chat.to("other").recall(ids[2])
        await chat.recall(card.id)

    bus = MemoryBus(knows_ids=True)
    await run(agent, bus)
    job = job_of()
    assert ids == [
        bus.sent_as(job, "0"),
        f"{bus.sent_as(job, 'key:long')} {bus.sent_as(job, 'key:long~2')}",
        bus.sent_as(job, "1", is_elsewhere=True),
    ]
    first, second = ids[1].split(" ")
    assert [what for _, _, what in acts(bus)] == [
        {"job_id": "message-1", "place": "key:long"},
        {"job_id": "message-1", "place": "key:long~2"},
        {"client_message_id": ids[0]},
        {"client_message_id": first},
        {"client_message_id": second},
        {"job_id": "message-1", "place": "2"},
    ]
    assert bus.elsewhere[-1][2].payload == {"client_message_id": ids[2]}
