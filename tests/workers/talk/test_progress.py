"""A progress card: once a second at most, never more than its updates, its end always; and anew in a second run."""

import time

import msgspec
import pytest
import trio
import trio.testing

from bus.records.cards import MOST_UPDATES, CardKept
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.talk.test_chat import run
from workers import Agent, BadCard, BlockingChat, Chat, InboundMessage


def counting(updates: int, seconds: float, *, fails: bool = False) -> Agent:
    agent = Agent()

    @agent.on_message()
    async def count(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("Counting") as bar:
            for number in range(updates):
                await bar.update(100 * number / updates, f"{number}")
                await trio.sleep(seconds)
            if fails:
                raise KeyError(number)
        await chat.reply("counted")

    return agent


def states(bus: MemoryBus) -> list[tuple[float, str]]:
    found = []
    for _, reply in bus.replies:
        artifact = reply.payload.get("artifact")
        if isinstance(artifact, dict):
            found.append((artifact["payload"]["percent"], artifact["payload"]["status"]))
    return found


async def test_it_begins_changes_once_a_second_and_ends(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    await run(counting(50, 0.1), bus)
    shown = states(bus)
    assert (shown[0], shown[-1]) == ((0, "starting"), (100, "done"))
    assert 4 <= len(shown) - 2 <= 5
    assert [reply.payload.get("based_on_revision") for _, reply in bus.replies[:-1]] == [None, *range(len(shown) - 1)]
    assert bus.replies[-1][0] == "1", "its updates take no numbers of the handler's places"


@pytest.mark.parametrize("hours", [1, 24])
async def test_however_long_it_takes_its_end_is_shown(autojump_clock: trio.testing.MockClock, hours: int) -> None:
    bus = MemoryBus()
    await run(counting(hours * 900, 4), bus)
    assert len(states(bus)) <= MOST_UPDATES + 1
    assert states(bus)[-1] == (100, "done")


async def test_one_that_fails_says_so(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    with pytest.raises(KeyError):
        await run(counting(3, 2, fails=True), bus)
    assert states(bus)[-1][1] == "failed"


async def test_a_second_run_shows_it_anew_under_the_revisions_that_follow(
    autojump_clock: trio.testing.MockClock,
) -> None:
    first = MemoryBus()
    await run(counting(3, 2), first)
    kept = CardKept(2, "message-1", "0", "progress")
    card = "card-message-1-0"
    bus = MemoryBus(emitted_before=frozenset({"0", "0:1:1", "0:2:1"}), cards={card: kept})
    await run(counting(3, 2), bus, job_of(attempt=2, deliveries=2))
    assert [reply.payload.get("based_on_revision") for _, reply in bus.replies[:-1]] == [2, 3, 4]
    assert states(bus)[-1] == (100, "done")


async def test_a_card_without_updates_left_costs_the_handler_nothing() -> None:
    card = "card-message-1-0"
    bus = MemoryBus(emitted_before=frozenset({"0"}), cards={card: CardKept(MOST_UPDATES, "message-1", "0", "progress")})
    await run(counting(0, 0), bus, job_of(attempt=2, deliveries=2))
    assert states(bus) == []
    assert len(bus.replies) == 1


@pytest.mark.parametrize(
    ("kind", "sender", "has_button"), [("group", "", False), ("group", "ada", True), ("h2a", "", True)]
)
async def test_a_card_that_is_nobodys_in_a_group_has_no_button(kind: str, sender: str, has_button: bool) -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def export(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("Exporting", cancel="Stop"):
            pass

    job = job_of()
    message = msgspec.structs.replace(job.message, conversation_type=kind, sender_id=sender)
    await run(agent, bus, msgspec.structs.replace(job, message=message))
    shown = bus.replies[0][1].payload["artifact"]
    assert ("actions" in str(shown)) is has_button


async def test_stop_cancels_the_block_and_not_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    agent, bus = Agent(), MemoryBus()
    ended = list[bool]()

    @agent.on_message()
    async def export(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            await bar.update(40)
            await trio.sleep(10)
            bus.stops = "another card"
            await trio.sleep(10)
            bus.stops = bar.id
            await trio.sleep(60)
            ended.append(False)
        ended.append(bar.cancelled)
        await chat.reply("Stopped." if bar.cancelled else "Done.")

    began = trio.current_time()
    await run(agent, bus)
    assert trio.current_time() - began < 25
    assert ended == [True]
    assert states(bus)[-1] == (40, "cancelled")
    assert bus.replies[-1][1].payload["text"] == "Stopped."
    artifact = bus.replies[0][1].payload["artifact"]
    assert isinstance(artifact, dict)
    assert artifact["payload"]["actions"] == [{"id": "cancel", "label": "Stop"}]


async def test_a_stop_that_was_pressed_before_the_second_run_counts_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    agent, bus = Agent(), MemoryBus(stops="card-message-1-0")

    @agent.on_message()
    async def export(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            await trio.sleep(60)
        assert bar.cancelled

    await run(agent, bus, job_of(attempt=2, deliveries=2))
    assert states(bus)[-1] == (0, "cancelled")


async def test_a_sync_handlers_block_ends_at_its_next_update_after_stop() -> None:
    agent, bus = Agent(), MemoryBus()
    ended = list[bool]()

    @agent.on_message()
    def export(message: InboundMessage, chat: BlockingChat) -> None:
        with chat.progress("Exporting", cancel="Stop") as bar:
            bus.stops = bar.id
            for _ in range(2_000):
                time.sleep(0.01)
                bar.update(1)
            ended.append(False)
        ended.append(bar.cancelled)

    await run(agent, bus)
    assert ended == [True]
    assert states(bus)[-1][1] == "cancelled"


async def test_a_redis_that_is_away_stops_nothing(autojump_clock: trio.testing.MockClock) -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def export(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            bus.stops, bus.away = bar.id, True
            await trio.sleep(30)
            assert not bar.cancelled
            bus.away = False
            await trio.sleep(30)
        assert bar.cancelled

    await run(agent, bus)
    assert states(bus)[-1][1] == "cancelled"


async def test_outside_of_its_block_it_is_refused() -> None:
    agent = Agent()

    @agent.on_message()
    async def late(message: InboundMessage, chat: Chat) -> None:
        async with chat.progress("x") as bar:
            pass
        await bar.update(1)

    with pytest.raises(BadCard, match="has ended"):
        await run(agent, MemoryBus())


async def test_a_sync_handler_shows_it_too() -> None:
    agent = Agent()

    @agent.on_message()
    def count(message: InboundMessage, chat: BlockingChat) -> None:
        with chat.progress("Counting") as bar:
            bar.update(50)

    bus = MemoryBus()
    await run(agent, bus)
    assert states(bus) == [(0, "starting"), (100, "done")]
