"""A retry of what was only noted as old: the relay is asked for it again, what was answered is not answered again, and nobody is offered anything."""

from pathlib import Path

from bus.steps.store import Intake
from supervisor.relay.frames import MessageNew
from tests.supervisor.builders import Core
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.inbound.test_quarantine_retrier import quarantine_retrier, until_tried
from tests.supervisor.inbound.test_reading import said
from tests.supervisor.person import CONVERSATION, PERSON


async def noted(core: Core) -> list[str]:
    return [one.message_id for one in await core.quarantine.old_messages.all()]


async def asked_again(core: Core, *frames: MessageNew) -> None:
    """By the operator; the relay has these."""
    core.rest.history = list(frames)
    await core.quarantine.old_messages.want(await noted(core))
    async with quarantine_retrier(core):
        await until_tried(core)


async def test_an_old_message_that_can_be_read_after_all_is_answered_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first, second, third = (ada.say(text) for text in ("first", "second", "third"))
        for frame in (first, third):
            await core.polled(frame)
        session, away = core.keys.session(PERSON, "phone"), "away"
        await core.client.command("RENAME", session, away)
        assert await core.polled(second) is Intake.OLD
        await core.client.command("RENAME", away, session)
        for _ in range(2):
            await asked_again(core, first, second, third)
            assert await noted(core) == []
            await core.quarantine.old_messages.want([second.message_id])
        assert await core.jobs() == ["first", "second", "third"], "in its place"


async def test_what_cannot_be_read_stays_noted_and_nothing_else_comes_of_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first, second = ada.say("first"), ada.say("second")
        for frame in (first, second):
            await core.polled(frame)
        assert await core.jobs() == ["first", "second"]
        await core.client.command("DEL", core.keys.ids(CONVERSATION))
        assert await core.polled(first) is Intake.OLD
        before = await core.client.command("HGET", core.keys.session(PERSON, "phone"), "v")
        await asked_again(core, first, second)
        assert await noted(core) == [first.message_id]
        assert (await core.jobs(), await said(core), await core.quarantine.count()) == ([], [], 0)
        assert await core.client.command("HGET", core.keys.session(PERSON, "phone"), "v") == before


async def test_what_the_relay_has_no_more_is_not_asked_for_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first, second = ada.say("first"), ada.say("second")
        for frame in (first, second):
            await core.polled(frame)
        await core.client.command("DEL", core.keys.ids(CONVERSATION))
        await core.polled(first)
        await asked_again(core)
        assert await noted(core) == [first.message_id]
