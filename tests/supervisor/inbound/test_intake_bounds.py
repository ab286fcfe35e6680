"""What comes faster than it can be read: bytes that wait, whose they are, how many are opened at once, and that others go on."""

import contextlib
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from bus.steps.store import Intake
from host.budgets import MIB, IntakeBudgets
from supervisor.relay.frames import MessageNew
from tests.redis_server import redis_server
from tests.supervisor.builders import WAIT_SECONDS, Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import Person
from tests.waiting import waiting_for

BUDGETS = IntakeBudgets(lanes_bytes=12 * MIB, opening_bytes=2 * MIB, page_bytes=4 * MIB)
LARGE = "x" * 700_000


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, budgets: IntakeBudgets = BUDGETS) -> AsyncIterator[tuple[Core, Person]]:
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, budgets=budgets) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("hello"))
            yield core, ada


def stranger(rest: FakeRest, number: int) -> Person:
    return Person(rest, f"01906abc-0000-7000-8000-0000000001{number:02x}")


def again(frame: MessageNew, number: int) -> MessageNew:
    """The same message under another id, with bytes of its own."""
    payload = frame.encrypted_payload.encode().decode()
    return msgspec.structs.replace(frame, message_id=f"m{number}", encrypted_payload=payload, conversation_seq=number)


async def test_while_the_relay_answers_slowly_what_is_pushed_takes_what_it_may_and_others_are_read(
    tmp_path: Path,
) -> None:
    """1,200 frames of 1 MB were 3.3 GB."""
    async with scene(tmp_path) as (core, ada):
        told = core.rest.hold_next("relations")
        flood = [
            (sender.say(LARGE, conversation=f"conversation-{number}", seq=1))
            for number in range(30)
            for sender in [stranger(core.rest, number)]
        ]
        tracemalloc.start()
        try:
            for number in range(1200):
                core.inbound.push(again(flood[number % 30], number))
                if number % 10 == 0:
                    await trio.lowlevel.checkpoint()
                assert core.inbound.taken_bytes <= BUDGETS.lanes_bytes
            core.inbound.push(ada.say("in the midst of it"))
            with waiting_for("both messages to be taken in", WAIT_SECONDS):
                while core.count("message_inbound_total", conv_type="h2a", payload_type="text") < 2:
                    await trio.sleep(0.005)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert core.count("frame_dropped_total", reason="lane_full") > 1000
        assert core.polls.times > 1000
        assert held < 1.2 * BUDGETS.lanes_bytes
        assert peak < 2 * BUDGETS.lanes_bytes
        told.set()
        with waiting_for("nothing to be on its way in", 20):
            while core.inbound.under_way:
                await trio.sleep(0.01)
        assert core.inbound.taken_bytes == 0


async def test_one_conversation_and_one_sender_leave_room_to_others(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        told = core.rest.hold_next("relations")
        eve, bob = stranger(core.rest, 1), stranger(core.rest, 2)
        for number in range(60):  # many conversations of one sender
            core.inbound.push(eve.say("x" * 100_000, conversation=f"eve-{number}", seq=1))
        of_eve = core.inbound.taken_bytes
        assert BUDGETS.lanes_bytes // 10 < of_eve <= BUDGETS.lanes_bytes // 5
        for number in range(60):  # one conversation
            core.inbound.push(bob.say("x" * 100_000, conversation="bob", seq=number + 1))
        assert core.inbound.taken_bytes - of_eve <= BUDGETS.lanes_bytes // 5
        before = core.count("frame_dropped_total", reason="lane_full")
        core.inbound.push(ada.say("x" * 300_000))
        assert core.count("frame_dropped_total", reason="lane_full") == before
        told.set()
        with waiting_for("nothing to be on its way in", 20):
            while core.inbound.under_way:
                await trio.sleep(0.01)


async def test_large_messages_are_opened_a_few_at_a_time_and_all_of_them_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening takes six times the frame, and a page has many conversations."""
    async with scene(tmp_path) as (core, _ada):
        people = [stranger(core.rest, number) for number in range(12)]
        for person in people:
            person.meet()
        frames = [person.say(LARGE, conversation=f"of-{person.user_id}", seq=1) for person in people]
        accept, in_work, most = core.store.accept, 0, 0

        async def counted(*arguments: object, **named: object) -> Intake:
            nonlocal in_work, most
            in_work += 1
            most = max(most, in_work)
            try:
                return await accept(*arguments, **named)  # type: ignore[arg-type]
            finally:
                in_work -= 1

        monkeypatch.setattr(core.store, "accept", counted)
        outcomes: list[Intake | None] = []

        async def take(frame: MessageNew) -> None:
            outcomes.append(await core.inbound.poll(frame))

        async with trio.open_nursery() as nursery:
            for frame in frames:
                nursery.start_soon(take, frame)
        assert outcomes == [Intake.ACCEPTED] * len(frames)
        assert 1 <= most <= BUDGETS.opening_bytes // len(LARGE)
