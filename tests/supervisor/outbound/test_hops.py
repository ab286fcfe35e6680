"""Two agents that answer each other come to an end (PROTOCOL §4): each answer to an agent is one hop more, the third goes to no handler."""

from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from bus.records.records import (
    InboundMessage,
    Reply,
    answering_hops,
    decode_job_record,
    decode_reply_record,
    open_reply,
)
from supervisor.relay.frames import MessageNew, MessageSend
from tests.supervisor.builders import KEYS, Core, sending, worker
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import AGENT
from workers import Agent, Chat
from workers.handling.context import observe_nothing
from workers.handling.execution import Run, RunEnvironment, run_handler


def of_an_agent(frame: MessageNew) -> MessageNew:
    return msgspec.structs.replace(frame, sender_type="agent")


@pytest.mark.pure
@pytest.mark.parametrize(
    ("sender_type", "hops", "answered_with"), [("human", 0, 0), ("agent", 0, 1), ("agent", 2, 3), ("human", 1, 2)]
)
def test_an_answer_to_an_agent_is_one_hop_more_and_to_a_person_none(
    sender_type: str, hops: int, answered_with: int
) -> None:
    assert answering_hops(sender_type, hops) == answered_with


async def test_the_third_hop_is_taken_in_counted_and_given_to_no_handler(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, other):
        for hops in (0, 1, 2, 3, 2**40):
            said = other.say(payload={"type": "text", "text": f"{hops}", "hop_count": hops})
            await core.push(of_an_agent(said))
        assert await core.jobs() == ["0", "1", "2"]
        assert core.count("frame_dropped_total", reason="hops") == 2
        assert await core.quarantine.count() == 0
        assert (await core.store.look(said.conversation_id, ("", ""), bytes(8))).next_seq == 6


def echo() -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply(f"echo {message.text}")

    return agent


async def answer_next(core: Core) -> None:
    """A worker runs the echo with the next job."""
    async with worker(core) as jobs:
        [job] = await jobs.take(1)
        bench = RunEnvironment(agent=echo(), outlet=jobs, threads=trio.CapacityLimiter(1), observe=observe_nothing)
        ended = await run_handler(bench, Run(job, (job.message,), frozenset()), lambda: None)
        await jobs.finish(job, last=ended.last)
        jobs.release(job)


async def test_two_echo_agents_that_answer_each_other_come_to_an_end(tmp_path: Path) -> None:
    """One is this agent, its handler run as a worker does; the other answers whatever it hears, with one hop more."""
    async with scene(tmp_path) as (core, other), sending(core):
        core.connection.connect()
        said, heard = other.say("hello"), list[object]()
        while True:
            await core.push(of_an_agent(said))
            if not await core.store.waiting_jobs():
                break
            await answer_next(core)
            frame = (await core.connection.wait_sent(len(heard) + 1))[-1]
            assert isinstance(frame, MessageSend)
            payload = other.read(frame)
            heard.append((payload["text"], payload["hop_count"]))
            seq = 2 * len(heard)
            assert await core.outbox.confirm(frame.conversation_id, frame.client_message_id, f"m{seq}", seq)
            hops = payload["hop_count"]
            assert isinstance(hops, int)
            answer = {"type": "text", "text": "again", "hop_count": answering_hops("agent", hops)}
            said = other.say(seq=seq + 1, payload=answer)
        assert heard == [("echo hello", 1), ("echo again", 3)]
        assert core.count("frame_dropped_total", reason="hops") == 1


async def test_a_person_is_answered_without_hops(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), sending(core):
        core.connection.connect()
        await core.push(ada.say("hello"))
        await answer_next(core)
        assert ada.read((await core.connection.wait_sent(1))[0]) == {"type": "text", "text": "echo hello"}


async def test_an_apology_and_a_refusal_to_an_agent_are_a_hop_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, other):
        await core.push(of_an_agent(other.say(payload={"type": "text", "text": "one"})))
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
            record = decode_job_record(await packed_of(core))
            apology = core.words.apology(record, "sorry")
            refusal = core.words.refusal("m", record.conversation_id, 1, "later", hops=2)
            for packed, hops in ((apology, 1), (refusal, 2)):
                reply = open_reply(decode_reply_record(packed), key=KEYS.bus, agent_id=AGENT)
                assert reply.payload["hop_count"] == hops
            sorry = Reply(kind="message", content_type="text", payload={"type": "text", "text": "sorry"})
            await jobs.fail(job, "handler_error", None, sorry)
            jobs.release(job)
        [packed] = await said_in(core, record.conversation_id)
        assert open_reply(decode_reply_record(packed), key=KEYS.bus, agent_id=AGENT).payload["hop_count"] == 1


async def packed_of(core: Core) -> bytes:
    [[_, fields]] = cast("list[list[list[bytes]]]", await core.client.command("XRANGE", core.keys.jobs, "-", "+"))
    return dict(zip(fields[::2], fields[1::2], strict=True))[b"r"]


async def said_in(core: Core, conversation_id: str) -> list[bytes]:
    return cast("list[bytes]", await core.client.command("LRANGE", core.keys.out_box(conversation_id), 0, -1))
