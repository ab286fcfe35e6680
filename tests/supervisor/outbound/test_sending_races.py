"""What a reply is made with changes while it is made: its person's keys, the epoch, a session, the lease under which it is held."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bus.records.records import BadRecord, Reply, ReplyRecord, open_reply
from bus.records.sealing import BusKey
from bus.steps.store import now_ms
from bus.transport.readers import StreamEntry
from crypto.grants import decide_key_change
from crypto.prekeys import Bundle
from supervisor.outbound.outgoing import Addressed
from supervisor.outbound.sealer import Sealer
from supervisor.peers.owners import Owner
from supervisor.peers.record_locks import Peer
from supervisor.relay.own_words import PING, RENEWED
from tests.supervisor.builders import Core, reply_to_next, sending, until
from tests.supervisor.outbound.test_outbound import acknowledge, dead_reasons, scene, successor_scene
from tests.supervisor.person import CONVERSATION, PERSON, Person, relation_of


async def lose_the_session(core: Core) -> None:
    await core.client.command("DEL", core.keys.session(PERSON, "phone"))


async def accept_the_held_keys(core: Core) -> None:
    """As `grants accept` does."""
    read = await core.vault.owner(PERSON)
    assert read.value is not None
    grant = Owner.decode(read.value).grant
    assert grant.held is not None
    entry = decide_key_change(grant, grant.held, accept=True, now_ms=now_ms())
    assert await core.ledger.put(PERSON, read, Owner(entry.grant, 0).encode(), entry.encode())


async def is_asked(core: Core, call: str) -> bool:
    return call in core.rest.calls


async def test_bundles_that_were_fetched_for_former_keys_begin_no_session_with_their_successor(tmp_path: Path) -> None:
    async with successor_scene(tmp_path) as (core, _):
        await lose_the_session(core)
        core.rest.calls.clear()
        answer_now = core.rest.hold_next("devices")  # with the former keys
        core.connection.connect()
        await reply_to_next(core, "an answer")
        successor = Person(core.rest)
        successor.say()  # nothing comes of it but the agent's pin
        async with sending(core):
            await until(lambda: is_asked(core, "devices"))
            core.rest.bundles[PERSON] = [successor.bundle]
            await core.owners.note(relation_of(successor), "active")
            await accept_the_held_keys(core)
            answer_now.set()
            [frame] = await core.connection.wait_sent(1)
        assert successor.read(frame)["text"] == "an answer"


def after_it_was_asked_for(core: Core, monkeypatch: pytest.MonkeyPatch, deed: Callable[[], Awaitable[None]]) -> None:
    """Something happens once, between what is asked for a reply and its encryption."""
    missing, deeds = Sealer.missing, [deed]

    async def and_then(sealer: Sealer, to: Addressed, peers: list[Peer]) -> dict[str, Bundle] | None:
        bundles = await missing(sealer, to, peers)
        if deeds:
            await deeds.pop()()
        return bundles

    monkeypatch.setattr(Sealer, "missing", and_then)


async def test_an_epoch_that_is_raised_meanwhile_has_a_session_offered_before_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):

        async def raise_it() -> None:
            core.write_count.epoch = 1
            await core.client.command("SET", core.keys.epoch, 1)

        after_it_was_asked_for(core, monkeypatch, raise_it)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [offer] = await core.connection.wait_sent(1)
            assert ada.read(offer) == {"type": "system", "event": {"kind": RENEWED}}
            acknowledge(core, offer, 2)
            _, frame = await core.connection.wait_sent(2)
        assert ada.read(frame)["text"] == "an answer"


async def test_a_session_that_is_lost_meanwhile_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with successor_scene(tmp_path) as (core, ada):
        after_it_was_asked_for(core, monkeypatch, lambda: lose_the_session(core))
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == "an answer"


@asynccontextmanager
async def held_up(core: Core) -> AsyncIterator[str]:
    """A reply is under way and waits for the relay; its entry."""
    await lose_the_session(core)
    core.rest.calls.clear()
    core.rest.hold_next("devices")
    core.connection.connect()
    await reply_to_next(core, "an answer")
    async with sending(core):
        await until(lambda: is_asked(core, "devices"))
        yield next(iter(core.taking.entries))


async def test_an_attempt_whose_lease_is_lost_before_its_commit_ends(tmp_path: Path) -> None:
    async with successor_scene(tmp_path) as (core, _), held_up(core) as entry_id:
        core.taking.lease_lost(entry_id)
        await trio.testing.wait_all_tasks_blocked()
        assert core.taking.under_way == 0
        assert core.connection.sent == []


async def test_an_entry_that_is_read_twice_is_worked_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as (core, _):
        read = core.reader.read

        async def twice(count: int) -> list[StreamEntry]:
            return 2 * await read(count)

        monkeypatch.setattr(core.reader, "read", twice)
        core.connection.connect()
        await reply_to_next(core, "an answer", "the next")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            acknowledge(core, frame, 2)
            await core.connection.wait_sent(2)
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(core.connection.sent) == 2


async def test_a_device_that_has_not_answered_for_long_is_asked_to_in_a_message_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        silence = [50]
        monkeypatch.setattr("supervisor.outbound.dispatch.unanswered", lambda _: silence.pop() if silence else 0)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            acknowledge(core, frame, 2)
            _, ping = await core.connection.wait_sent(2)
            assert ada.read(frame)["text"] == "an answer"
            assert ada.read(ping) == {"type": "system", "event": {"kind": PING}}
            acknowledge(core, ping, 3)
            await until(lambda: is_empty(core))


async def is_empty(core: Core) -> bool:
    return await core.outbox.all() == [] and await core.client.command("XLEN", core.keys.replies) == 0


async def test_a_reply_that_was_committed_before_is_sent_as_it_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit's answer was lost: what is asked again finds its own."""
    async with scene(tmp_path) as (core, ada):
        commit, outcomes = core.outbox.commit, list[str]()

        async def commit_twice(**named: object) -> object:
            for _ in range(2):
                answer = await commit(**named)  # type: ignore[arg-type]
                outcomes.append(answer.outcome.name)
            return answer

        monkeypatch.setattr(core.outbox, "commit", commit_twice)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert outcomes[0] == "COMMITTED"
        assert outcomes[1] != "COMMITTED"
        assert ada.read(frame)["text"] == "an answer"
        assert await core.outbox.all() == [CONVERSATION]


async def test_what_was_read_and_not_begun_when_it_stops_is_anybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core, "an answer")
        reader = core.reader
        read = await reader.read(1)
        await reader.close()

        async def left_over() -> list[StreamEntry]:
            await trio.lowlevel.checkpoint()
            return read

        monkeypatch.setattr(reader, "close", left_over)
        assert await core.recovery.holders(core.recovery.replies) != []
        await core.taking.stop()
        assert await core.recovery.holders(core.recovery.replies) == []


async def test_a_reply_that_does_not_open_is_a_dead_letter_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        damaged = 1

        def opened(record: ReplyRecord, *, key: BusKey, agent_id: str) -> Reply:
            nonlocal damaged
            if damaged:
                damaged -= 1
                raise BadRecord("it does not open")
            return open_reply(record, key=key, agent_id=agent_id)

        monkeypatch.setattr("supervisor.outbound.outbound.open_reply", opened)
        core.connection.connect()
        await reply_to_next(core, "damaged", "the next")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == "the next"
        assert await dead_reasons(core) == ["unreadable_record"]
