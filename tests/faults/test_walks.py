"""Walks over what may be more than a page: each comes to its end, with more than one page of it in a real Redis."""

from pathlib import Path

from bus.steps.letters import PAGE as LETTERS_PAGE
from bus.steps.letters import DeadLetters
from bus.steps.thread_steps import ThreadSteps
from bus.transport.client import keys_like
from bus.views.conversations import PAGE as CONVERSATIONS_PAGE
from bus.views.conversations import Conversations
from bus.views.overview import SCAN_COUNT, Overview
from bus.views.trace import PAGE as LEDGER_PAGE
from bus.views.trace import Ledger
from bus.whole.reseal import PAGE as KEYS_PAGE
from tests.bus.builders import AGENT, BUS_KEY, Bus, open_bus
from tests.redis_server import redis_server


async def test_dead_letters_and_ledger_are_walked_to_their_end(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            letters = 2 * LETTERS_PAGE + 1
            fields = ("why", "tried", "r", "x", "a", 1, "d", 1, "at", 1)
            for _ in range(letters):
                await bus.client.command("XADD", bus.keys.dead, "*", *fields)
            assert len([letter async for letter in DeadLetters(bus.client, bus.keys).all()]) == letters
            notes = 2 * LEDGER_PAGE + 1
            for _ in range(notes):
                await bus.client.command("XADD", bus.keys.ledger, "*", "e", "began", "c", "job", "d", "")
            assert len(await Ledger(bus.client, bus.keys).trace("job")) == notes


async def test_what_has_ended_is_found_behind_more_than_a_page(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            ledger = Ledger(bus.client, bus.keys)
            for name, job, told in (
                *(("queued", f"other-{number}", "conversation") for number in range(2 * LEDGER_PAGE)),
                ("acknowledged", "mine", "!renewed-1 message-1 "),
                ("acknowledged", "mine", "0 message-2 7"),
                ("dropped", "another", "0 no_grant"),
            ):
                await bus.client.command("XADD", bus.keys.ledger, "*", "e", name, "j", job, "x", told)
            ended, since = await ledger.ended({"mine", "another", "a third"}, "-")
            assert ended == {"mine": "", "another": "no_grant"}
            assert await ledger.ended({"mine"}, since) == ({}, since)


async def test_a_question_that_is_quoted_is_found_on_a_later_page(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            steps = ThreadSteps(bus.client, AGENT, BUS_KEY, "worker")
            told = [("replied", "thread", "ask:a#1")] * (2 * LEDGER_PAGE)
            await bus.client.command(
                "XADD", bus.keys.ledger, "1-1", "e", "acknowledged", "j", "thread", "x", "ask:a#1 old 7"
            )
            for event, job, detail in (
                *told,
                ("acknowledged", "another", "ask:a#1 message-1 7"),
                ("acknowledged", "thread", "ask:a#1 message-2 7"),
            ):
                await bus.client.command("XADD", bus.keys.ledger, "*", "e", event, "j", job, "x", detail)
            assert await steps.message_id_of("thread", "ask:a#1", 1000) == "message-2"
            assert await steps.message_id_of("thread", "ask:a#2", 1000) == ""


async def test_more_than_a_page_of_conversations_are_all_read_and_the_latest_come_first(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            many = 2 * CONVERSATIONS_PAGE + 1
            for number in range(many):
                key = bus.keys.conversation(f"{number}")
                await bus.client.command("HSET", key, "kind", "h2a", "person", f"p{number}", "t0", 1000 + number)
            await bus.client.command("HSET", bus.keys.conversation("nobody wrote"), "own:!pong", 1)
            reading = Conversations(bus.client, bus.keys)
            found = [one async for page in reading.all() for one in page]
            assert sorted(int(one.conversation_id) for one in found) == list(range(many))
            assert {(one.person, one.heard_ms) for one in found} == {(f"p{n}", 1000 + n) for n in range(many)}
            for conversation in ("7", "gone", "8", *["9"] * (LEDGER_PAGE + 1)):
                await bus.client.command(
                    "XADD", bus.keys.ledger, "*", "e", "queued", "j", "m", "x", f"{conversation} 1"
                )
            latest, has_more = await reading.latest(5)
            assert [one.conversation_id for one in latest[:3]] == ["9", "8", "7"]
            assert (len(latest), has_more) == (5, True)
            assert (await reading.latest(many))[1] is False


async def test_what_was_acknowledged_is_found_on_a_later_page_and_not_from_before(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            ledger = Ledger(bus.client, bus.keys)
            for at, message_id in (("1000-0", "old"), ("5000-0", "ours")):
                await bus.client.command(
                    "XADD", bus.keys.ledger, at, "e", "acknowledged", "j", "job", "x", f"0 {message_id} 1"
                )
            for _ in range(2 * LEDGER_PAGE + 1):
                await bus.client.command("XADD", bus.keys.ledger, "*", "e", "replied", "j", "job", "x", "0")
            await bus.client.command("XADD", bus.keys.ledger, "*", "e", "encrypted", "j", "job", "x", "key:a 01ID")
            assert await ledger.sent_as("01ID", 4000) == ("job", "key:a")
            assert await ledger.sent_as("01OTHER", 4000) is None
            assert await ledger.acknowledged("job", "0", 4000) == "ours"
            assert await ledger.acknowledged("job", "1", 0) is None
            assert await ledger.acknowledged("job", "0", 6000) is None


async def test_a_store_of_more_than_a_page_is_counted(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            many = 2 * SCAN_COUNT + 1
            await many_conversations(bus, many)
            kinds, are_all = await Overview(bus.client, bus.keys).kinds()
            assert (kinds["conv"].keys, are_all) == (many, True)


async def test_a_store_of_more_than_a_page_is_sealed_anew_to_its_end(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            many = 2 * KEYS_PAGE + 1
            await many_conversations(bus, many)
            pages = [page async for page in keys_like(bus.client, bus.keys.pattern, KEYS_PAGE)]
            found = {name for page in pages for name in page}
            assert len([name for name in found if ":conv:" in name]) == many
            assert len(pages) > 1


async def many_conversations(bus: Bus, count: int) -> None:
    for number in range(count):
        await bus.client.command("HSET", bus.keys.conversation(f"{number}"), "next", 1)
