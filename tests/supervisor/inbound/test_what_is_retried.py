"""Which messages in quarantine are tried, in which order, and which of them are wanted still after they were."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from bus.steps.letters import Quarantined
from bus.steps.store import Intake, Source, now_ms
from bus.steps.work_lease import WorkLease
from supervisor.inbound.inbound import MessageInWork
from supervisor.inbound.incoming import Incoming, MessageFrame
from supervisor.inbound.quarantine_retrier import QuarantineRetrier
from supervisor.inbound.shares import FreeBytes
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import WAIT_SECONDS, Core, until
from tests.supervisor.inbound.test_inbound import scene as inbound_scene
from tests.supervisor.inbound.test_quarantine_retrier import (
    BEN,
    count_is,
    held_back,
    quarantine_retrier,
    restore,
    say_unheard,
    session_of,
    suspend,
    until_nothing_is_held_back,
    until_tried,
)
from tests.supervisor.outbound.test_recipients import other_owners
from tests.supervisor.person import PERSON, Person, relation_of
from tests.waiting import waiting_for

OFTEN = Pauses(quarantine_look=0.01)
scene = partial(inbound_scene, pauses=OFTEN)


def noted_tries(core: Core, monkeypatch: pytest.MonkeyPatch, *instead: Intake) -> list[str]:
    """The messages that are tried, in order; the first tries have these outcomes, whatever the message is."""
    tried, outcomes, retry = list[str](), list(instead), core.inbound.retry

    async def noted(message: Quarantined, frame: MessageFrame) -> MessageInWork:
        tried.append(message.message_id)
        if not outcomes:
            return await retry(message, frame)
        waiting = MessageInWork(Incoming(frame, Source.QUARANTINE, now_ms()), FreeBytes(1))
        waiting.outcome = outcomes.pop(0)
        return waiting

    monkeypatch.setattr(core.inbound, "retry", noted)
    return tried


@pytest.mark.parametrize("outcome", [Intake.NOT_NOW, Intake.CONFLICT])
async def test_behind_one_that_cannot_be_tried_now_the_later_ones_of_its_conversation_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Intake
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        one, two = await say_unheard(core, ada, "one", "two")
        tried = noted_tries(core, monkeypatch, outcome)
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert tried == [one.message_id, one.message_id, two.message_id]
        assert await core.jobs() == ["one", "two"]


async def test_what_may_have_been_mended_while_it_was_tried_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one")
        retry, is_first = core.inbound.retry, True

        async def and_then_it_comes(message: Quarantined, frame: MessageFrame) -> MessageInWork:
            nonlocal is_first
            waiting = await retry(message, frame)
            if is_first:
                is_first = False
                await restored_unheard(core, ada, tmp_path)
                core.triggers.owner_changed(PERSON)
                await marked.wait()
            return waiting

        want, marked = core.quarantine.want, trio.Event()

        async def wanted(names: Iterable[str]) -> None:
            await want(names)
            if not is_first:
                marked.set()

        monkeypatch.setattr(core.inbound, "retry", and_then_it_comes)
        monkeypatch.setattr(core.quarantine, "want", wanted)
        async with hearing(core):
            await core.quarantine.want([message.message_id async for message in core.quarantine.all()])
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one"]


async def restored_unheard(core: Core, person: Person, state_dir: Path) -> None:
    """Another supervisor has noted it, and this one heard nothing."""
    await other_owners(core, state_dir).note(relation_of(person), "active")


async def cut(core: Core, name: str) -> None:
    """As one that is not kept whole."""
    await core.client.command("HSET", core.keys.quarantined(name), "frame", "")


async def test_one_that_is_not_kept_whole_is_read_at_the_relay_and_is_wanted_until_that_answers(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        one, two = await say_unheard(core, ada, "one", "two")
        core.rest.history = [one, two]
        await cut(core, one.message_id)
        core.rest.fail_next("poll", *[RestFailed("poll", 503)] * 2)
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert core.rest.calls.count("poll") == 3
        assert await core.jobs() == ["one", "two"]


async def test_one_that_the_relay_has_no_more_stays_and_holds_up_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        one, _ = await say_unheard(core, ada, "one", "two")
        await cut(core, one.message_id)
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until(lambda: count_is(core, 1))
            await until_tried(core)
        assert await core.jobs() == ["two"]


async def test_one_whose_frame_only_a_defect_can_have_spoiled_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        [one] = await say_unheard(core, ada, "one")
        await core.client.command("HSET", core.keys.quarantined(one.message_id), "frame", "no frame")
        done, tried = core.quarantine.tried, trio.Event()

        async def noted(name: str) -> None:
            await done(name)
            tried.set()

        monkeypatch.setattr(core.quarantine, "tried", noted)
        async with quarantine_retrier(core):
            await restore(core, ada)
            with waiting_for("the quarantined message to be tried", WAIT_SECONDS):
                await tried.wait()
        assert "poll" not in core.rest.calls
        assert await count_is(core, 1)


async def test_at_the_start_nobody_is_tried_who_may_not_talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one")
        heard_by(core, RetryTriggers())  # as a process that heard nothing
        tried, marked = noted_tries(core, monkeypatch), trio.Event()
        want = core.quarantine.want

        async def wanted(names: Iterable[str]) -> None:
            await want(names)
            marked.set()

        monkeypatch.setattr(core.quarantine, "want", wanted)
        async with quarantine_retrier(core):
            with waiting_for("the messages that may be mended to be marked, and tried", WAIT_SECONDS):
                await marked.wait()
            await until_tried(core)
        assert tried == []
        assert await held_back(core) == [f"no_grant {PERSON}"]


async def test_of_more_than_can_be_heard_at_once_nothing_is_missed(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one")
        triggers = RetryTriggers(1)
        heard_by(core, triggers)
        triggers.owner_changed(BEN)
        async with hearing(core):
            await until(lambda: is_taken(triggers))
            await restored_unheard(core, ada, tmp_path)
            for owner_id in (BEN, BEN, PERSON):
                triggers.owner_changed(owner_id)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one"]


@asynccontextmanager
async def hearing(core: Core) -> AsyncIterator[None]:
    """As before everything new was taken in: nothing counts as mended by the start alone."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.quarantine_retrier.run, trio.sleep_forever)
        yield
        nursery.cancel_scope.cancel()


async def is_taken(triggers: RetryTriggers) -> bool:
    await trio.lowlevel.checkpoint()
    return triggers.waiting == 0


def heard_by(core: Core, triggers: RetryTriggers) -> None:
    """Its quarantine is tried again for what comes by these, and for nothing else."""
    core.quarantine_retrier = QuarantineRetrier(
        core.quarantine,
        WorkLease(core.client, core.keys.work_lease("retry"), holder=core.instance.name),
        triggers,
        inbound=core.inbound,
        owners=core.owners,
        rest=core.rest,
        metrics=core.metrics,
        pauses=OFTEN,
    )


async def test_what_two_of_an_older_version_wrote_without_a_seq_comes_in_its_order(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        said = [msgspec.structs.replace(ada.say(text), message_id=name) for text, name in (("one", "b"), ("two", "a"))]
        for frame in said:
            await core.polled(frame)
            await core.client.command("HDEL", core.keys.quarantined(frame.message_id), "seq")
        async with quarantine_retrier(core):
            await restore(core, ada)
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one", "two"]


async def test_of_whom_the_relay_did_not_tell_it_is_asked_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        await suspend(core, ada)
        await say_unheard(core, ada, "one")
        core.triggers.owner_changed(BEN)
        async with hearing(core):
            await until(lambda: is_taken(core.triggers))
            await restored_unheard(core, ada, tmp_path)
            due = [[PERSON]]
            monkeypatch.setattr(core.owners, "unanswered", lambda: due.pop() if due else [])
            await until_nothing_is_held_back(core)
        assert await core.jobs() == ["one"]


async def test_a_signed_message_whose_copy_was_taken_in_stays_as_it_is(tmp_path: Path) -> None:
    """It leaves by an operator's word: what somebody has signed is not thrown away by itself."""
    async with scene(tmp_path) as (core, ada):
        await core.polled(ada.say("the session begins"))
        session, kept = core.keys.session(PERSON, "phone"), "kept"
        await core.client.command("RENAME", session, kept)
        [frame] = await say_unheard(core, ada, "said in it")
        await core.client.command("RENAME", kept, session)
        await core.polled(msgspec.structs.replace(frame, message_id="a-copy", conversation_seq=3))
        async with quarantine_retrier(core):
            core.triggers.session_began(PERSON, session_of(frame))
            await until(lambda: is_wanted_or_was(core, frame.message_id))
            await until_tried(core)
        assert await core.jobs() == ["the session begins", "said in it"]
        assert await count_is(core, 1)


async def is_wanted_or_was(core: Core, name: str) -> bool:
    return name in await core.quarantine.wanted() or core.count("message_duplicate_total") > 0
