"""Quarantine and dead letters in bytes and in number: what is kept of a message, how it comes back all the same, who leaves first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog
import trio
import trio.testing

from bus.views.trace import Ledger
from host.budgets import EVIDENCE_BYTES
from supervisor.inbound.evidence import decode_evidence
from supervisor.inbound.overflow import Overflow
from supervisor.relay.frames import MessageNew
from tests.supervisor.builders import Core, until, worker
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.inbound.test_quarantine_retrier import (
    count_is,
    quarantine_retrier,
    restore,
    suspend,
    until_nothing_is_held_back,
    until_tried,
)
from tests.supervisor.person import Person


def keep_nothing_whole(core: Core) -> None:
    core.store.budgets = msgspec.structs.replace(core.store.budgets, quarantine_bytes=0, unsigned_bytes=0)


async def say_unheard(core: Core, person: Person, *texts: str) -> list[MessageNew]:
    said = [person.say(text) for text in texts]
    core.rest.history += said
    for frame in said:
        await core.polled(frame)
        assert await core.quarantined(frame) == "no_grant"
        await core.store.advance_cursor(await core.store.cursor(), frame.message_id)
    return said


async def test_messages_for_which_there_was_no_room_are_read_again_at_the_relay_when_they_can_be_read(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        keep_nothing_whole(core)
        core.rest.page_length = 2
        await suspend(core, ada)
        said = await say_unheard(core, ada, "one", "two", "three", "four", "five")
        found = [await core.quarantine.find(frame.message_id) for frame in said]
        assert [one is not None and one.frame for one in found] == [b""] * 5
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one", "two", "three", "four", "five"]


async def test_behind_one_for_which_the_relay_does_not_answer_the_later_ones_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        keep_nothing_whole(core)
        await suspend(core, ada)
        await say_unheard(core, ada, "one", "two")
        core.rest.fail_next("poll")
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one", "two"]


async def test_what_the_relay_has_no_more_stays_where_it_is_and_is_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        keep_nothing_whole(core)
        await suspend(core, ada)
        [gone, there] = await say_unheard(core, ada, "one", "two")
        core.rest.history.remove(gone)
        with structlog.testing.capture_logs() as lines:
            async with quarantine_retrier(core):
                await restore(core, ada)
                await until(lambda: count_is(core, 1))
                await until_tried(core)
        assert await core.quarantined(gone) == "no_grant"
        assert await core.quarantined(there) is None
        named = [line["message_id"] for line in lines if line["event"] == "quarantine: the relay has it no more"]
        assert set(named) == {gone.message_id}


async def test_of_a_message_that_nobody_can_read_evidence_is_kept_and_not_its_frame(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.polled(ada.say("the session begins"))
        huge = msgspec.structs.replace(ada.say("unread"), encrypted_payload="?" * 1_000_000)
        await core.polled(huge)
        assert await core.quarantined(huge) == "malformed"
        size = await core.client.command("MEMORY", "USAGE", core.keys.quarantined(huge.message_id), "SAMPLES", 0)
        assert isinstance(size, int)
        assert size <= EVIDENCE_BYTES
        found = await core.quarantine.find(huge.message_id)
        assert found is not None
        evidence = decode_evidence(found.evidence)
        assert evidence is not None
        assert (evidence.encrypted_characters, evidence.conversation_seq) == (1_000_000, huge.conversation_seq)
        assert huge.message_id in evidence.head


@asynccontextmanager
async def overflow(core: Core, **most: int) -> AsyncIterator[None]:
    core.store.budgets = msgspec.structs.replace(core.store.budgets, **most)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Overflow(core.store, core.quarantine, core.dead, core.metrics).run)
        yield
        nursery.cancel_scope.cancel()


async def test_beyond_the_most_in_number_the_oldest_leave_the_quarantine_and_everybody_can_see_it(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        said = await say_unheard(core, ada, "one", "two", "three", "four", "five")
        async with overflow(core, most_quarantined=2):
            await until(lambda: are_counted(core, "quarantine", 3))
        assert [await core.quarantined(frame) for frame in said] == [None] * 3 + ["no_grant"] * 2
        [last] = [
            event
            for event in await Ledger(core.client, core.keys).trace(said[0].message_id)
            if event.name == "given_up"
        ]
        assert last.facts == {"by": "overflow"}
        assert core.count("overflowed_total", kind="quarantine") == 3
        assert await core.quarantine.count() == 2


async def test_beyond_their_bytes_the_oldest_dead_letters_leave(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        for text in ("one", "two", "three"):
            await core.polled(ada.say(text * 20_000))
            async with worker(core) as jobs:
                [job] = await jobs.take(1)
                await jobs.fail(job, "broke", None)
                jobs.release(job)
        assert await core.dead.count() == 3
        async with overflow(core, dead_bytes=await core.dead.size_bytes() - 1000):
            await until(lambda: are_counted(core, "dead", 1))
            await trio.testing.wait_all_tasks_blocked()
        assert await core.dead.count() == 2
        assert core.count("overflowed_total", kind="dead") == 1


async def are_counted(core: Core, kind: str, number: int) -> bool:
    return core.count("overflowed_total", kind=kind) >= number
