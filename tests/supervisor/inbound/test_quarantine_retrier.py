"""What stands in quarantine is tried again when what it lacked has come, and only then; in order, once, whatever dies meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
import trio.testing

from bus.steps.letters import Quarantined
from bus.steps.store import Arrival, Source, now_ms
from bus.transport.trouble import Trouble
from bus.transport.wire import RedisFailed
from bus.views.trace import Ledger
from crypto.envelope import Expected, parse_envelope, ratchet_wrap
from supervisor.inbound.quarantine_retrier import START_SECONDS
from supervisor.peers.retry_triggers import group_key_came, mark, owner_changed, session_began
from supervisor.relay.frames import GroupKeyRotated, MessageNew
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.redis_server import running_redis
from tests.supervisor.builders import Core, open_core, until
from tests.supervisor.doubles import FakeRest
from tests.supervisor.inbound.test_inbound import OTHER_CONVERSATION, scene
from tests.supervisor.peers.group_scene import GROUP
from tests.supervisor.peers.group_scene import scene as group_scene
from tests.supervisor.person import AGENT, CONVERSATION, PERSON, Person, relation_of

DAY_MS = 86_400_000
BEN = "01906abc-0000-7000-8000-0000000000b1"


@asynccontextmanager
async def quarantine_retrier(core: Core) -> AsyncIterator[None]:
    """They run as long as the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.quarantine_retrier.run)
        yield
        nursery.cancel_scope.cancel()


async def held_back(core: Core) -> list[str]:
    return [f"{message.reason} {message.sender_id}" async for message in core.quarantine.all()]


async def until_nothing_is_held_back(core: Core) -> None:
    async def empty() -> bool:
        return await core.quarantine.count() == 0

    await until(empty)


async def until_tried(core: Core) -> None:
    async def nothing_wanted() -> bool:
        return not await core.quarantine.wanted()

    await until(nothing_wanted)


async def suspend(core: Core, person: Person) -> None:
    core.rest.related = [relation_of(person, status="suspended")]
    await core.owners.refresh()


async def restore(core: Core, person: Person) -> None:
    core.rest.related = [relation_of(person, status="active")]
    await core.owners.note(relation_of(person), "active")


async def say_unheard(core: Core, person: Person, *texts: str) -> list[MessageNew]:
    said = [person.say(text) for text in texts]
    for frame in said:
        await core.polled(frame)
        assert await core.quarantined(frame) is not None
    return said


async def test_a_restored_relation_brings_this_persons_messages_back_in_order_and_no_strangers(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        stranger = Person(core.rest, BEN)
        await suspend(core, ada)
        await say_unheard(core, ada, "one", "two", "three")
        await core.polled(stranger.say(conversation=OTHER_CONVERSATION))
        async with quarantine_retrier(core):
            with structlog.testing.capture_logs() as lines:
                await restore(core, ada)
                await until(lambda: count_is(core, 1))
                await until_tried(core)
        assert await held_back(core) == [f"no_grant {BEN}"]
        assert not [line for line in lines if "still not" in str(line["event"])]
        assert await core.jobs() == ["one", "two", "three"]
        assert core.count("message_requeued_total", reason="no_grant") == 3


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_seemed_to_be_of_days_to_come_is_read_once_our_clock_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    """Two days behind, all that newcomers and groups said was malformed."""
    async with group_scene(tmp_path) as (core, circle, ada, _):
        newcomer = Person(core.rest, "01906abc-0000-7000-8000-0000000000d1")
        newcomer.meet()
        await core.owners.refresh()
        said = [newcomer.say("from a newcomer", conversation=OTHER_CONVERSATION), circle.say(ada, "in a group")]
        behind = now_ms() - 2 * DAY_MS
        with monkeypatch.context() as clock:
            for place in ("inbound.reading_persons", "peers.groups"):
                clock.setattr(f"supervisor.{place}.now_ms", lambda: behind)
            for frame in said:
                await core.polled(frame)
        assert [line.split()[0] for line in await held_back(core)] == ["malformed"] * 2
        core.rest.history += said
        if not is_restarted:
            while core.triggers.waiting:
                await core.triggers.next()
            core.triggers.clock_was_set()
            assert await mark(core.quarantine, await core.triggers.next()) == 2
        async with quarantine_retrier(core):
            await until_nothing_is_held_back(core)
        assert sorted(await core.jobs()) == ["from a newcomer", "in a group"]


async def count_is(core: Core, count: int) -> bool:
    return await core.quarantine.count() == count


async def test_a_groups_key_brings_back_what_was_said_under_it_and_nothing_else(tmp_path: Path) -> None:
    async with group_scene(tmp_path) as (core, circle, ada, _):
        sealed = core.rest.group_keys.pop(GROUP)
        for text in ("one", "two"):
            await core.polled(circle.say(ada, text))
        stranger = Person(core.rest, "01906abc-0000-7000-8000-0000000000d1")
        await core.polled(stranger.say(conversation=OTHER_CONVERSATION))
        assert [line.split()[0] for line in await held_back(core)] == ["unknown_group_key"] * 2 + ["no_grant"]
        async with quarantine_retrier(core), trio.open_nursery() as nursery:
            nursery.start_soon(core.groups.run)
            await until_tried(core)
            relations_read = core.rest.calls.count("relations")
            core.rest.group_keys[GROUP] = sealed
            core.groups.rotated(GroupKeyRotated(GROUP, 1))
            await until(lambda: count_is(core, 1))
            nursery.cancel_scope.cancel()
        assert core.rest.calls.count("relations") == relations_read
        assert await core.jobs() == ["one", "two"]


async def test_a_new_session_has_what_was_said_without_one_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.polled(ada.say("the session begins"))
        session, kept = core.keys.session(PERSON, "phone"), "kept"
        await core.client.command("RENAME", session, kept)
        [frame] = await say_unheard(core, ada, "said in it")
        assert (await core.quarantined(frame)) in ("no_session", "unknown_prekey")
        await core.client.command("RENAME", kept, session)
        async with quarantine_retrier(core):
            core.triggers.session_began(BEN, b"s")
            core.triggers.session_began(PERSON, session_of(frame))
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["the session begins", "said in it"]


async def test_a_session_that_begins_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as (core, ada):
        told = list[tuple[str, bytes]]()
        monkeypatch.setattr(core.triggers, "session_began", lambda *session: told.append(session))
        first, second = ada.say(), ada.say()
        await core.polled(first)
        await core.polled(second)
        assert told == [(PERSON, session_of(first))], "once, although the second names its handshake too"


def session_of(frame: MessageNew) -> bytes:
    envelope = parse_envelope(frame.encrypted_payload, Expected(frame.conversation_id, frame.sender_id, None))
    return ratchet_wrap(envelope, AGENT).session


async def test_what_comes_touches_only_what_it_may_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand messages of one person's in quarantine cost nothing at each of their new sessions."""
    async with scene(tmp_path) as (core, ada):
        await core.polled(ada.say("a session begins"))
        tried = list[str]()
        find = core.quarantine.find

        async def noted(name: str) -> Quarantined | None:
            tried.append(name)
            return await find(name)

        async with quarantine_retrier(core):
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(core.quarantine, "find", noted)
            for number in range(200):
                await core.store.quarantine(
                    msgspec.structs.replace(blank_arrival(f"m{number}"), seq=number + 2),
                    reason="no_session",
                    frame=b"{}",
                    sender_id=PERSON,
                    waits_for=f"{PERSON}/another session",
                )
            await core.polled(Person(core.rest, BEN).say(conversation=OTHER_CONVERSATION))
            marked = await mark(core.quarantine, session_began(PERSON, b"yet another"))
            marked += await mark(core.quarantine, group_key_came("a group"))
            assert (marked, tried) == (0, [])
            assert await mark(core.quarantine, owner_changed(BEN)) == 1
            await until(lambda: is_so(len(tried) > 0))
            await until_tried(core)
            assert len(set(tried)) == 1


async def is_so(fact: bool) -> bool:
    await trio.lowlevel.checkpoint()
    return fact


def blank_arrival(message_id: str) -> Arrival:
    return Arrival(
        conversation_id=CONVERSATION, source=Source.POLL, seq=1, signed_id=b"", message_ms=0, message_id=message_id
    )


async def test_what_an_older_version_has_put_there_is_listed_at_the_start_and_tried(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        [frame] = await say_unheard(core, ada, "of an older version")
        name = core.keys.quarantined(frame.message_id)
        await core.client.command("HDEL", name, "for", "seq", "verified", "digest")
        await core.client.command("DEL", core.keys.waiting_for)
        async with quarantine_retrier(core):

            async def is_listed() -> bool:
                return await core.client.command("ZCARD", core.keys.waiting_for) == 1

            await until(is_listed)
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["of an older version"]
        assert await core.client.command("ZCARD", core.keys.waiting_for) == 0


async def test_two_messages_under_one_message_id_are_both_kept_and_both_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        one, two = ada.say("one"), ada.say("two")
        two = msgspec.structs.replace(two, message_id=one.message_id)
        for frame in (one, two, one, two):
            await core.polled(frame)
        assert await core.quarantine.count() == 2
        assert len(await core.quarantine.named_after(one.message_id)) == 2
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one", "two"]


async def test_what_is_beside_another_is_no_frame_to_an_older_version(tmp_path: Path) -> None:
    """It would take the other one out of quarantine in its place."""
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        one, two = ada.say("one"), ada.say("two")
        for frame in (one, msgspec.structs.replace(two, message_id=one.message_id)):
            await core.polled(frame)
        frames = [
            await core.client.command("HGET", core.keys.quarantined(name), "frame")
            for name in await core.quarantine.named_after(one.message_id)
        ]
        assert [frame == b"" for frame in frames] == [False, True]


async def test_a_device_that_is_listed_later_has_its_messages_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        tablet = Person(core.rest, device_id="tablet", identity=ada.identity)
        await core.polled(ada.say("from the phone"))
        said = tablet.say("from the tablet", seq=2)
        await core.polled(said)
        assert await core.quarantined(said) == "unknown_sender"
        core.rest.bundles[PERSON].append(tablet.bundle)
        owner = await core.owners.find(PERSON)
        assert owner is not None
        async with quarantine_retrier(core):
            await core.owners.bundles(owner)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["from the phone", "from the tablet"]


async def test_a_copy_of_a_genuine_message_leaves_the_quarantine_unanswered(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        [genuine] = await say_unheard(core, ada, "once")
        copy = msgspec.structs.replace(genuine, message_id="a-copy", conversation_seq=2)
        await core.polled(copy)
        assert await core.quarantine.count() == 2
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["once"]
        [last] = [event for event in await Ledger(core.client, core.keys).trace("a-copy") if event.name == "given_up"]
        assert last.facts == {"by": "copy"}


async def test_behind_a_message_for_which_the_relay_is_away_the_later_ones_wait(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(quarantine_look=0.01)) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one", "two")
        core.rest.fail_next("devices", *[RestFailed("devices", 503)] * 2)
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert core.rest.calls.count("devices") == 3
        assert await core.jobs() == ["one", "two"]


async def test_what_comes_while_redis_is_away_is_marked_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with open_core(server.url, rest, pauses=Pauses(quarantine_look=0.01)) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await suspend(core, ada)
            await say_unheard(core, ada, "one", "two")
            await restore(core, ada)  # before anybody listens
            server.kill()
            really_met, tries = Trouble.met, 0

            def met(trouble: Trouble, error: RedisFailed) -> float:
                nonlocal tries
                tries += 1
                return really_met(trouble, error)

            monkeypatch.setattr(Trouble, "met", met)
            with structlog.testing.capture_logs() as lines:
                async with quarantine_retrier(core):

                    async def waits() -> bool:
                        return tries > 10

                    await until(waits)
                    server.start()
                    await until_nothing_is_held_back(core)
            assert await core.jobs() == ["one", "two"]
            said = [
                (line["part"], line["reason"]) for line in lines if line["event"].startswith("redis: a part cannot")
            ]
            assert {part for part, _ in said} == {"quarantine: marking", "quarantine: trying"}
            assert len(said) == len(set(said)), "once for each reason, however often it is tried"


@pytest.mark.parametrize("marked", [False, True])
async def test_a_supervisor_that_is_killed_between_leaves_it_to_the_next_one(tmp_path: Path, marked: bool) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        said = await say_unheard(core, ada, "one", "two")
        await restore(core, ada)  # heard and stored; then it was killed, before or after the marks
        if marked:
            await core.quarantine.want(frame.message_id for frame in said)
        async with open_core(core.url, core.rest) as following, quarantine_retrier(following):
            await until_nothing_is_held_back(following)
        assert await core.jobs() == ["one", "two"]


async def test_two_supervisors_that_try_the_same_message_queue_it_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one", "two", "three")
        async with open_core(core.url, core.rest) as other, quarantine_retrier(core), quarantine_retrier(other):
            await restore(core, ada)
            other.triggers.owner_changed(PERSON)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one", "two", "three"]


async def test_what_still_cannot_be_read_stays_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        [frame] = await say_unheard(core, ada, "one")
        async with quarantine_retrier(core):
            await core.quarantine.want([frame.message_id, "never-heard-of"])
            await until_tried(core)
        assert await core.quarantined(frame) == "no_grant"
        assert await core.jobs() == []


@asynccontextmanager
async def successor_of_one_that_marked_nothing(core: Core, *related: object) -> AsyncIterator[Core]:
    """The one before heard of these relations and was killed."""
    core.rest.related = list(related)  # type: ignore[arg-type]
    await core.owners.refresh()
    async with open_core(core.url, core.rest) as successor, trio.open_nursery() as nursery:
        nursery.start_soon(successor.quarantine_retrier.run, successor.catchup.caught_up)
        yield successor
        nursery.cancel_scope.cancel()


async def test_after_a_start_what_is_new_comes_first_but_what_has_just_been_mended_does_not_wait(
    tmp_path: Path,
) -> None:
    """A gigabyte in quarantine would be read again from the relay beside what people said meanwhile."""
    async with scene(tmp_path) as (core, ada):
        ben = Person(core.rest, BEN)
        ben.meet()
        await suspend(core, ada)
        await say_unheard(core, ada, "one", "two")
        bens = ben.say("three", conversation=OTHER_CONVERSATION)
        related = relation_of(ada, status="active"), relation_of(ben, status="suspended")
        async with successor_of_one_that_marked_nothing(core, *related) as successor:
            await successor.polled(bens)
            assert await core.quarantined(bens) is not None
            await successor.owners.note(relation_of(ben), "active")

            async def ben_is_heard() -> bool:
                return await core.quarantined(bens) is None

            await until(ben_is_heard)
            assert await core.quarantine.count() == 2
            assert await successor.catchup.poll_to_the_present()
            await until_nothing_is_held_back(core)


async def test_a_start_waits_for_what_is_new_for_a_minute_at_most(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one")
        async with successor_of_one_that_marked_nothing(core, relation_of(ada, status="active")):
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(START_SECONDS)
            await until_nothing_is_held_back(core)
