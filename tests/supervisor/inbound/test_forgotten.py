"""What the relay counts and nobody here remembers: this state went back without anything here that says so (DESIGN rule 17)."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from bus.steps.store import Intake
from bus.transport.client import RedisClient, open_redis
from crypto.renewal import MAX_GIVEN_UP_PER_DAY
from supervisor.relay.frames import Frame, MessageSend
from tests.redis_server import redis_server
from tests.supervisor.builders import Core, open_core, reply_to_next, sending
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import PERSON, Person
from tests.supervisor.recovery.test_time_guard import answered, answered_after_an_offer, confirmed
from tests.trials.drills.forks import forks

FOUND = "forgotten_sends_total"


@asynccontextmanager
async def connected(url: str, rest: FakeRest) -> AsyncIterator[Core]:
    async with open_core(url, rest) as core:
        await core.guard.begin()
        core.connection.connect()
        async with sending(core):
            yield core


@asynccontextmanager
async def talking(tmp_path: Path) -> AsyncIterator[tuple[Core, Person]]:
    """A person and an answered message."""
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with connected(url, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("first"))
            ada.read(await answered(core, "to the first", 2))
            yield core, ada


def stored(*frames: Frame) -> list[str]:
    """The envelopes that a relay keeps of these: the first under each id."""
    first: dict[str, str] = {}
    for frame in frames:
        assert isinstance(frame, MessageSend)
        first.setdefault(frame.client_message_id, frame.encrypted_payload)
    return list(first.values())


async def dumped(client: RedisClient) -> dict[bytes, bytes]:
    keys = cast("list[bytes]", await client.command("KEYS", "*"))
    return {key: cast(bytes, await client.command("DUMP", key)) for key in keys}


async def put_back(client: RedisClient, dump: dict[bytes, bytes]) -> None:
    await client.command("FLUSHALL")
    for key, value in dump.items():
        await client.command("RESTORE", key, 0, value)


MEMORY = ("redis-seen.json", "witness")


async def kept(core: Core, machine: Path) -> dict[bytes, bytes]:
    """All that goes back with a virtual machine and its memory: what Redis holds, and beside `machine` what stands in its folder."""
    await core.guard.look_again()
    for name in MEMORY:
        _copied(machine / name, machine.parent / name)
    return await dumped(core.client)


async def machine_put_back(url: str, machine: Path, dump: dict[bytes, bytes]) -> None:
    async with open_redis(url) as client:
        await put_back(client, dump)
    for name in MEMORY:
        _copied(machine.parent / name, machine / name)


def _copied(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


async def test_a_machine_put_back_with_its_memory_sends_on_no_session_in_which_it_forgot_something(
    tmp_path: Path,
) -> None:
    """Redis, its process' name, what was seen and the witness come back together: the relay's numbers alone tell."""
    rest = FakeRest()
    machine = tmp_path / "machine"
    machine.mkdir()
    with redis_server(machine) as url:
        async with connected(url, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("first"))
            ada.read(await answered(core, "to the first", 2))
            dump = await kept(core, machine)
            second = ada.say("second", seq=3)
            await core.push(second)
            await reply_to_next(core, "one", "two", "three")
            lost = []
            for seq in (4, 5, 6):
                lost.append((await core.connection.wait_sent(seq - 2))[-1])
                await confirmed(core, lost[-1], seq)
        await machine_put_back(url, machine, dump)
        async with connected(url, rest) as core:
            assert core.count("redis_went_back_total") + core.count("redis_unproven_total") == 0
            assert await core.polled(second) is Intake.ACCEPTED
            again = await answered(core, "in other words", 4)
            assert await core.polled(ada.say("third", seq=7)) is Intake.ACCEPTED
            after = await answered_after_an_offer(core, ada, "to the third", 8, 9)
            assert ada.read(after)["text"] == "to the third"
            assert forks(stored(*lost, again, *core.connection.sent)) == []
            assert core.count(FOUND) == 1


async def test_a_session_in_which_more_was_sent_than_is_known_here_is_left_with_all_devices(tmp_path: Path) -> None:
    async with talking(tmp_path) as (core, ada):
        tablet = Person(core.rest, device_id="tablet", identity=ada.identity)
        core.rest.bundles[PERSON].append(tablet.bundle)
        await core.push(tablet.say("from the tablet", seq=3))
        both = await answered(core, "to both", 4)
        for device in (ada, tablet):
            device.read(both)
        before = [device.state.sessions for device in (ada, tablet)]
        assert await core.polled(ada.say("later", seq=6)) is Intake.ACCEPTED
        await answered_after_an_offer(core, ada, "to the later", 7, 8)
        tablet.read(core.connection.sent[-2])
        assert tablet.read(core.connection.sent[-1])["text"] == "to the later"
        assert [len(device.state.sessions - old) for device, old in zip((ada, tablet), before, strict=True)] == [1, 1]
        assert core.count(FOUND) == 1


async def test_the_one_send_that_waits_for_its_confirmation_explains_one_number(tmp_path: Path) -> None:
    async with talking(tmp_path) as (core, ada):
        await core.push(ada.say("second", seq=3))
        await reply_to_next(core, "to the second")
        under_way = (await core.connection.wait_sent(2))[-1]
        assert await core.polled(ada.say("third", seq=5)) is Intake.ACCEPTED
        await confirmed(core, under_way, 4)
        ada.read(await answered(core, "to the third", 6))
        assert (core.count(FOUND), len(ada.state.sessions)) == (0, 1)


async def test_a_confirmation_that_overtakes_explains_its_own_number(tmp_path: Path) -> None:
    async with talking(tmp_path) as (core, ada):
        await core.push(ada.say("second", seq=3))
        third, fourth = ada.say("third", seq=4), ada.say("fourth", seq=6)
        ada.read(await answered(core, "to the second", 5))
        assert [await core.polled(frame) for frame in (third, fourth)] == [Intake.ACCEPTED, Intake.ACCEPTED]
        assert core.count(FOUND) == 0


async def test_what_the_relay_makes_up_costs_so_many_sessions_a_day_and_no_more(tmp_path: Path) -> None:
    async with talking(tmp_path) as (core, ada):
        seq = 2
        for number in range(MAX_GIVEN_UP_PER_DAY + 3):
            seq += 2
            assert await core.polled(ada.say(f"{number}", seq=seq)) is Intake.ACCEPTED
            count = len(core.connection.sent)
            await reply_to_next(core, f"to {number}")
            while True:
                frame = (await core.connection.wait_sent(count + 1))[count]
                seq, count = seq + 1, count + 1
                await confirmed(core, frame, seq)
                if ada.read(frame).get("text") == f"to {number}":
                    break
        assert core.count(FOUND) == MAX_GIVEN_UP_PER_DAY


async def test_a_first_message_with_a_high_number_and_a_push_that_overtakes_mean_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as (core, ada):
        other = "01906abc-0000-7000-8000-0000000000c2"
        assert await core.polled(ada.say("elsewhere", seq=40, conversation=other)) is Intake.ACCEPTED
        assert core.count(FOUND) == 0
        frame = ada.say("later", seq=9)
        await core.push(frame)
        assert (core.polls.times, core.count(FOUND)) == (1, 0), "others may be on their way"
        for _ in range(2):
            await core.polled(frame)
        assert core.count(FOUND) == 1


async def test_what_redis_is_known_to_have_lost_is_not_taken_for_more(tmp_path: Path) -> None:
    """Its sessions are started anew already."""
    async with talking(tmp_path) as (core, ada):
        core.write_count.is_doubted = True
        await core.guard.look_again()
        await core.polled(ada.say("second", seq=5))
        ada.read(await answered_after_an_offer(core, ada, "to the second", 6, 7))
        await core.polled(ada.say("third", seq=11))
        ada.read(await answered(core, "to the third", 12))
        assert (core.count(FOUND), core.write_count.epoch) == (0, 1)
