"""What a handler says in another conversation."""

import pytest
import trio
import trio.testing

from bus.steps.job_steps import Emitted
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.talk.test_chat import run
from workers import Agent, App, BadCard, BadReply, BlockingChat, Chat, InboundMessage, Info
from workers.testing import conversation


def telling() -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("here")
        other = chat.to("other")
        sent = await other.reply("there", markdown=True)
        await other.reply("x" * 100_001, key="long")
        await other.send({"type": "image", "attachment_id": "a"})
        await sent.recall()
        await chat.reply("here again")

    return agent


def said(bus: MemoryBus) -> list[tuple[str, str, str]]:
    return [(conversation_id, place, reply.kind) for conversation_id, place, reply in bus.elsewhere]


async def test_it_shares_the_jobs_places_and_goes_there() -> None:
    bus = MemoryBus()
    await run(telling(), bus)
    assert [place for place, _ in bus.replies] == ["0", "4"]
    assert said(bus) == [
        ("other", "1", "message"),
        ("other", "key:long", "message"),
        ("other", "key:long~2", "message"),
        ("other", "2", "message"),
        ("other", "3", "recall"),
    ]
    assert bus.elsewhere[0][2].payload == {"type": "text", "text": "there", "markdown": True}
    assert bus.elsewhere[-1][2].payload == {"job_id": "message-1", "place": "1"}
    again = MemoryBus(emitted_before=frozenset({"0", "1", "key:long", "key:long~2", "2"}))
    await run(telling(), again)
    assert said(again) == [("other", "3", "recall")]


async def test_a_conversation_that_is_unknown_is_refused() -> None:
    with pytest.raises(BadReply, match="no such conversation"):
        await run(telling(), MemoryBus(emit_answers={"1": Emitted.UNKNOWN}))


async def test_who_lost_the_job_says_nothing_more() -> None:
    bus = MemoryBus(emit_answers={"1": Emitted.FENCED})
    assert not await run(telling(), bus)
    assert said(bus) == []


async def test_it_waits_for_room_and_for_redis(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus(emit_answers={"1": Emitted.FULL})
    async with running(telling(), bus):
        bus.give(job_of())
        bus.away = True
        await trio.sleep(60)
        assert said(bus) == []
        bus.away = False
        await bus.until(lambda: bus.finished)
    assert len(said(bus)) == 5


async def test_a_sync_handler_does_it_too_and_the_test_kit_shows_it() -> None:
    agent = Agent()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        chat.to("other").reply("there").recall()

    chat = conversation(agent)
    assert await chat.say("hi") == []
    assert [(where, payload.get("text")) for where, payload in chat.elsewhere] == [("other", "there"), ("other", None)]


async def test_a_card_is_shown_there_in_its_place_and_taken_back_by_its_id() -> None:
    agent, ids = Agent(), list[str]()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        other = chat.to("other")
        ids.append((await other.reply(App("board", {"moves": 1}))).id)
        shown = {"artifact_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "subtype": "info", "payload": {"body": "x"}}
        await other.send({"type": "artifact", "artifact": shown})
        await other.recall(ids[0])
        with pytest.raises(BadCard):
            await other.recall("01ARZ3NDEKTSV4RRFFQ69G5FAX")

    bus = MemoryBus()
    await run(agent, bus)
    assert said(bus) == [("other", "0", "message"), ("other", "1", "message"), ("other", "2", "recall")]
    assert bus.elsewhere[0][2].payload["artifact"] == {
        "artifact_id": ids[0],
        "subtype": "app",
        "payload": {"ui": "board", "moves": 1},
    }
    assert {one: kept.kind for one, kept in bus.cards.items()} == {
        ids[0]: "app board",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV": "info",
    }
    assert bus.elsewhere[-1][2].payload == {"job_id": "message-1", "place": "0"}
    again = MemoryBus(emitted_before=frozenset({"0", "1"}), cards_before={"0": ids[0]}, cards=bus.cards)
    await run(agent, again)
    assert (said(again), ids[0]) == ([("other", "2", "recall")], ids[1])


async def test_a_sync_handler_shows_a_card_there_too() -> None:
    agent = Agent()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        chat.to("other").reply(Info("there"))

    chat = conversation(agent)
    await chat.say("hello")
    [(to, payload)] = chat.elsewhere
    assert (to, payload["type"]) == ("other", "artifact")
