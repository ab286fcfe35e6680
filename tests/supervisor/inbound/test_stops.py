"""Stop at a card of the running job goes to that job; any other answer goes to a handler."""

from pathlib import Path

import msgspec
import pytest
import trio

from bus.records.cards import CardMove
from bus.records.records import STOP_ALL, Payload
from bus.steps.policies import Policies
from supervisor.relay.payloads import stopped_card, stops
from tests.bus.builders import message_of
from tests.supervisor.builders import text_reply, worker
from tests.supervisor.inbound.test_inbound import scene
from tests.waiting import until, waiting_for


def answer(card_id: object, action: object = "cancel", subtype: str = "response") -> Payload:
    return {
        "type": "artifact",
        "artifact": {"subtype": subtype, "ref_artifact": card_id, "payload": {"action": action}},
    }


async def test_a_stop_reaches_the_running_job_and_no_handler(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, person):
        await core.push(person.say("export"))
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
            await jobs.emit_card(job, "0", text_reply("the card"), CardMove("card", "progress"))
            await core.push(person.say(payload=answer("card", "more")))
            await core.push(person.say(payload=answer("another")))
            assert await jobs.stopped(job) == ""
            await core.push(person.say(payload=answer("card")))
            assert await jobs.stopped(job) == "card"
            await jobs.finish(job)
            jobs.release(job)
            found = []
            for _ in range(2):
                [one] = await jobs.take(1)
                found.append(one.message.payload)
                await jobs.finish(one)
                jobs.release(one)
            assert found == [answer("card", "more"), answer("another")]
            assert await core.client.command("XLEN", core.keys.jobs) == 0, "the stop itself is no job"
            await core.push(person.say(payload=answer("card")))
            [late] = await jobs.take(1)
            assert late.message.payload == answer("card"), "the job that it was for has ended"


async def test_rule_8_the_job_is_told_at_once_and_looks_by_itself_where_it_was_not(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, person):
        await core.push(person.say("export"))
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
            await jobs.until_stop_is_pressed(job, 0)  # from now on it hears
            heard_by = [core.keys.interrupts.encode(), 1]

            async def is_heard() -> bool:
                return await core.client.command("PUBSUB", "NUMSUB", core.keys.interrupts) == heard_by

            await until(is_heard, 60)
            await jobs.emit_card(job, "0", text_reply("the card"), CardMove("card", "progress"))
            with waiting_for("the Stop to be told", 10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(jobs.until_stop_is_pressed, job, 60)
                    await core.push(person.say(payload=answer("card")))
            await jobs.until_stop_is_pressed(job, 0)  # of the next one it is told anew
            jobs.release(job)


async def test_the_word_stop_ends_what_is_done_for_who_says_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, person):
        await core.push(person.say("tell me a story"))
        async with worker(core, policies=Policies(stop=True)) as jobs:
            told = trio.Event()
            jobs.on_superseded(lambda _entry: told.set())
            [job] = await jobs.take(1)
            heard_by = [core.keys.interrupts.encode(), 1]

            async def is_heard() -> bool:
                return await core.client.command("PUBSUB", "NUMSUB", core.keys.interrupts) == heard_by

            await until(is_heard, 60)
            await core.push(person.say(" /Stop please"))
            with waiting_for("the worker to be told", 10):
                await told.wait()
            assert await jobs.stopped(job) == STOP_ALL
            await jobs.finish(job, "stopped")
            jobs.release(job)
            assert await core.client.command("XLEN", core.keys.jobs) == 0, "the word itself is no job"


@pytest.mark.pure
def test_the_word_is_a_command_in_a_text() -> None:
    def said(payload: Payload) -> str:
        return stops(msgspec.structs.replace(message_of(1), payload=payload))

    assert said({"type": "text", "text": " /STOP now"}) == STOP_ALL
    assert said(answer("card")) == "card"
    nothing: list[Payload] = [
        {"type": "text", "text": "stop"},
        {"type": "text", "text": "/stopp"},
        {"type": "text", "text": "please /stop"},
        {"type": "text", "text": ""},
        {"type": "text", "text": 7},
        {"type": "file", "text": "/stop"},
    ]
    assert [said(one) for one in nothing] == [""] * len(nothing)


@pytest.mark.pure
def test_only_the_action_cancel_of_an_answer_to_a_card_is_a_stop() -> None:
    assert stopped_card(answer("card")) == "card"
    nothing: list[Payload] = [
        answer("card", "more"),
        answer("card", subtype="info"),
        answer(7),
        {"type": "artifact", "artifact": {"subtype": "response", "ref_artifact": "card", "payload": "cancel"}},
        {"type": "artifact", "artifact": "response"},
        {"type": "text", "text": "cancel"},
    ]
    assert [stopped_card(one) for one in nothing] == [""] * len(nothing)
