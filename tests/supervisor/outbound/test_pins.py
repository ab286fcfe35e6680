"""To whom a conversation belongs: asked once, and again when Redis may have forgotten."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trio.testing import MockClock

from supervisor.outbound.recipients import PIN_SECONDS, PinMemory
from tests.redis_server import redis_server
from tests.supervisor.builders import Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import CONVERSATION, PERSON


@asynccontextmanager
async def pinned(tmp_path: Path) -> AsyncIterator[tuple[Core, PinMemory]]:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            await pin(core, PERSON)
            yield core, PinMemory(core.store)


async def pin(core: Core, person: str, conversation: str = CONVERSATION) -> None:
    """As `accept` does, if it may."""
    await core.client.command("HSET", core.keys.conversation(conversation), "kind", "h2a", "person", person)


async def test_a_pin_is_asked_for_once(tmp_path: Path) -> None:
    async with pinned(tmp_path) as (core, pins):
        assert await pins.find("another", 0) is None
        assert await pins.find(CONVERSATION, 0) == ("h2a", PERSON)
        await pin(core, "somebody else")
        assert await pins.find(CONVERSATION, 0) == ("h2a", PERSON)


async def test_after_redis_went_back_a_pin_is_asked_for_again(tmp_path: Path) -> None:
    async with pinned(tmp_path) as (core, pins):
        await pins.find(CONVERSATION, 0)
        await pin(core, "somebody else")
        assert await pins.find(CONVERSATION, 1) == ("h2a", "somebody else")


async def test_after_a_while_a_pin_is_asked_for_again(tmp_path: Path, clock: MockClock) -> None:
    async with pinned(tmp_path) as (core, pins):
        await pins.find(CONVERSATION, 0)
        await pin(core, "somebody else")
        clock.jump(PIN_SECONDS)
        assert await pins.find(CONVERSATION, 0) == ("h2a", "somebody else")


async def test_what_has_no_pin_yet_is_not_remembered(tmp_path: Path) -> None:
    async with pinned(tmp_path) as (core, pins):
        await core.client.command("DEL", core.keys.conversation(CONVERSATION))
        assert await pins.find(CONVERSATION, 0) is None
        await pin(core, PERSON)
        assert await pins.find(CONVERSATION, 0) == ("h2a", PERSON)


async def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    async with pinned(tmp_path) as (core, _):
        few = PinMemory(core.store, most=2)
        for conversation in (CONVERSATION, "second", "third"):
            await pin(core, PERSON, conversation)
            await few.find(conversation, 0)
        for conversation in (CONVERSATION, "third"):
            await pin(core, "somebody else", conversation)
        assert await few.find("third", 0) == ("h2a", PERSON)
        assert await few.find(CONVERSATION, 0) == ("h2a", "somebody else"), "which was read longest ago"
