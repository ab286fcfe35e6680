"""Device records as the supervisor holds them: sealed, versioned, one holder of a record at a time."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from bus.steps.store import SessionWrite
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import bundle_from_json
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.sessions import start_session
from supervisor.peers.sessions import Loaded, Sessions
from tests.redis_server import redis_server
from tests.supervisor.builders import Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import PERSON, Person

PEER = (PERSON, "phone")


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Core]:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            yield core


def some_record() -> DeviceRecord:
    """A record with one session."""
    person = Person(FakeRest())
    device = LocalDevice("agent", "agent", IdentityKeys.generate(os.urandom))
    return start_session(
        EMPTY_RECORD, device, bundle_from_json(person.bundle, PERSON), epoch=0, now_ms=1, random=os.urandom
    )


async def put(core: Core, read: Loaded, record: DeviceRecord) -> SessionWrite:
    """As a commit does."""
    write = core.sessions.seal(PEER, read, record)
    key = core.keys.session(*PEER)
    await core.client.command("HSET", key, "v", write.version + 1, "b", write.sealed, "e", 0)
    return write


async def test_what_was_never_stored_is_an_empty_record_of_version_0(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        loaded = await core.sessions.load(PEER)
        assert (loaded.record, loaded.version) == (EMPTY_RECORD, 0)


async def test_a_record_is_read_as_it_was_stored_by_any_supervisor(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        record = some_record()
        await put(core, await core.sessions.load(PEER), record)
        for sessions in (core.sessions, Sessions(core.vault, core.write_count)):
            assert await sessions.load(PEER) == Loaded(record, 1, 0)


async def test_what_another_has_changed_is_read_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        first, second = some_record(), some_record()
        read = await core.sessions.load(PEER)
        core.sessions.committed(await put(core, read, first), first)
        await put(core, await core.sessions.load(PEER), second)
        assert (await core.sessions.load(PEER)).record == second
        snapshot = await core.store.look("conversation", PEER, b"12345678")
        assert core.sessions.of_snapshot(PEER, snapshot).record == second


async def test_what_a_message_has_just_moved_is_sent_with_unread_and_only_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.guard.begin()
        first, second = some_record(), some_record()
        read = await core.sessions.load(PEER)
        core.sessions.taken_in(await put(core, read, first), first)
        await put(core, await core.sessions.load(PEER), second)  # by another supervisor: the commit would find it stale
        assert await core.sessions.load_to_send(PEER) == Loaded(first, 1, 0)
        assert (await core.sessions.load_to_send(PEER)).record == second


@pytest.mark.parametrize("cause", ["another epoch", "another look", "an answer", "never looked"])
async def test_a_record_is_read_before_it_is_sent_with(tmp_path: Path, cause: str) -> None:
    async with scene(tmp_path) as core:
        if cause != "never looked":
            await core.guard.begin()
        first, second = some_record(), some_record()
        write = await put(core, await core.sessions.load(PEER), first)
        core.sessions.taken_in(write, first)
        if cause == "another epoch":
            core.write_count.epoch += 1
        elif cause == "another look":
            await core.guard.look_again()
        elif cause == "an answer":
            core.sessions.committed(write, first)
        await put(core, await core.sessions.load(PEER), second)
        assert (await core.sessions.load_to_send(PEER)).record == second


@pytest.mark.parametrize("field", ["version", "owner", "device"])
async def test_a_record_that_does_not_open_at_its_place_is_as_good_as_lost(tmp_path: Path, field: str) -> None:
    async with scene(tmp_path) as core:
        await put(core, await core.sessions.load(PEER), some_record())
        key = core.keys.session(*PEER)
        peer = {"version": PEER, "owner": ("other", "phone"), "device": (PERSON, "other")}[field]
        if field == "version":
            await core.client.command("HSET", key, "v", 2)
        else:
            await core.client.command("COPY", key, core.keys.session(*peer))
        loaded = await core.sessions.load(peer)
        assert loaded.record == EMPTY_RECORD
        assert loaded.version == (2 if field == "version" else 1)  # so that its successor takes its place


async def test_one_holder_of_a_record_at_a_time_and_different_records_do_not_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        order: list[str] = []

        async def hold(name: str, peer: tuple[str, str], entered: trio.Event, leave: trio.Event) -> None:
            async with core.sessions.locked([peer]):
                order.append(name)
                entered.set()
                await leave.wait()

        events = [trio.Event() for _ in range(6)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, "first", PEER, events[0], events[1])
            await events[0].wait()
            nursery.start_soon(hold, "second", PEER, events[2], events[3])
            nursery.start_soon(hold, "other", (PERSON, "tablet"), events[4], events[5])
            await events[4].wait()
            assert order == ["first", "other"]
            events[1].set()
            await events[2].wait()
            events[3].set()
            events[5].set()


async def test_only_so_many_records_are_kept_decoded(tmp_path: Path) -> None:
    """Of one that is kept it is known that Redis has an older one."""
    async with scene(tmp_path) as core:
        sessions = Sessions(core.vault, core.write_count, most_decoded=10)
        for number in range(50):
            peer = (PERSON, f"device-{number}")
            sessions.committed(sessions.seal(peer, Loaded(EMPTY_RECORD, 0, 0), EMPTY_RECORD), EMPTY_RECORD)
        kept = []
        for number in range(50):
            core.write_count.is_doubted = False
            await sessions.load((PERSON, f"device-{number}"))
            kept += [number] * core.write_count.is_doubted
        assert kept == list(range(40, 50))


async def test_no_repr_shows_a_key(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        record = some_record()
        assert record.current is not None
        read = await core.sessions.load(PEER)
        write = core.sessions.seal(PEER, read, record)
        shown = repr((Loaded(record, 1, 0), write, read, core.vault, core.sessions))
        assert repr(record.current.ratchet.root_key)[2:-1] not in shown
        assert "sealed=" not in shown


@pytest.mark.parametrize("raised", [False, True])
async def test_a_record_older_than_this_process_stored_is_doubted_unless_the_epoch_was_raised(
    tmp_path: Path, raised: bool
) -> None:
    async with scene(tmp_path) as core:
        record = some_record()
        core.sessions.committed(await put(core, await core.sessions.load(PEER), record), record)
        if raised:
            core.write_count.epoch += 1
        await core.client.command("DEL", core.keys.session(*PEER))
        await core.sessions.load(PEER)
        assert core.write_count.is_doubted is not raised


async def test_a_dropped_session_is_remembered_as_long_as_the_prekey_that_it_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        record = msgspec.structs.replace(some_record(), dropped=((1, b"s" * 16), (2, b"t" * 16)))
        for kept, remembered in ((None, [1, 2]), (frozenset((1, 2)), [1, 2]), (frozenset((2,)), [2])):
            if kept is not None:
                core.sessions.keep_only_dropped_of(kept)
            read = await core.sessions.load(PEER)
            await put(core, read, record)
            assert [prekey_id for prekey_id, _ in (await core.sessions.load(PEER)).record.dropped] == remembered
