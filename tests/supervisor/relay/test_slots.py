"""A supervisor's slot over time: taken, renewed, lost only to another holder, free within a second of its holder's end."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import redis
import trio

from bus.records.keys import Keys
from bus.steps.slots import HeldSlot, Holder, SlotStore, holder_of
from bus.transport.client import RedisClient, open_redis
from bus.transport.wire import RedisFailed
from host.instance import Instance
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.slots import ABANDONED_SECONDS, ConnectionSlot
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import dead_instance
from tests.waiting import said_of, waiting_for

KEYS = Keys("01906abc-0000-7000-8000-000000000001")
WAIT_SECONDS = 30.0


def instance(number: int) -> Instance:
    """The process of a host of its own: of its life the others know nothing."""
    return Instance(f"{number:08x}", number, 1)


class Scene:
    """Supervisors' slots over one Redis."""

    def __init__(self, url: str, nursery: trio.Nursery, most: int) -> None:
        self._wishes: dict[ConnectionSlot, PollWish] = {}
        self._url = url
        self._nursery = nursery
        self._most = most

    @property
    def asked_for(self) -> list[ConnectionSlot]:
        """Those that have asked for a poll."""
        return [slots for slots, polls in self._wishes.items() if polls.times]

    async def supervisor(self, who: Instance) -> tuple[ConnectionSlot, trio.CancelScope]:
        """It wants a slot. Cancel the scope, and it is as silent as one that hangs."""
        client = await self._nursery.start(self._client)
        polls = PollWish()
        slots = ConnectionSlot(SlotStore(client, KEYS, self._most), who, polls=polls)
        self._wishes[slots] = polls
        scope = await self._nursery.start(self._run, slots)
        return slots, scope

    async def _client(self, task_status: trio.TaskStatus[RedisClient] = trio.TASK_STATUS_IGNORED) -> None:
        async with open_redis(self._url) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def _run(self, slots: ConnectionSlot, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slots.run)
            nursery.start_soon(slots.take)
            task_status.started(nursery.cancel_scope)


@asynccontextmanager
async def scene(url: str, most: int = 1) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        yield Scene(url, nursery, most)
        nursery.cancel_scope.cancel()


def record(url: str) -> Holder:
    """What the holder of the one slot says of itself."""
    with redis.Redis.from_url(url, protocol=2) as client:
        found = holder_of(cast("bytes", client.hget(KEYS.slots, "1")))
        assert found is not None
        return found


async def until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    with waiting_for(said_of(condition), seconds):
        while not condition():
            await trio.sleep(0.01)


async def test_a_standby_takes_a_slot_that_is_given_up(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as made:
            first, _ = await made.supervisor(instance(1))
            await first.take()
            second, _ = await made.supervisor(instance(2))
            await until(lambda: second.is_standby)
            assert "standby: every slot is taken by" in second.detail
            await until(lambda: first.has_successor)
            await first.give_up_for_good()
            await second.take()
            assert (first.number, second.number) == (0, 1)
            with trio.move_on_after(0):
                await first.take()
            assert not first.is_standby, "it wants no other any more"
            assert made.asked_for == [], "it was given up: nothing is pushed into its connection any more"


async def test_who_gives_its_slot_up_for_a_standby_and_wants_one_again_at_once_comes_after_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as made:
            first, _ = await made.supervisor(instance(1))
            await first.take()
            second, silence = await made.supervisor(instance(2))
            await until(lambda: second.is_standby and first.standby_waits)
            silence.cancel()  # slow: it looks again a moment later
            await first.give_up()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.take)
                await until(lambda: first.is_standby)
                nursery.start_soon(second.run)
                await second.take()
                await second.give_up()
                await first.take()
                assert record(url).yields
                first.note_connected(True)
                await until(lambda: not record(url).yields)  # it has had its place again
                nursery.cancel_scope.cancel()


async def test_a_slot_of_a_process_of_this_host_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as made:
            gone, silence = await made.supervisor(dead_instance())
            await gone.take()
            silence.cancel()
            second, _ = await made.supervisor(Instance.of_this_process())
            began = trio.current_time()
            await second.take()
            assert trio.current_time() - began < 4.0, "the lease was waited for"
            await until(lambda: made.asked_for)


async def test_a_slot_of_a_silent_supervisor_elsewhere_is_free_when_its_lease_has_run_out(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url) as made:
            first, silence = await made.supervisor(instance(1))
            await first.take()
            second, _ = await made.supervisor(instance(2))
            await until(lambda: second.is_standby)
            silence.cancel()
            await second.take()
            await until(lambda: made.asked_for)
            async with trio.open_nursery() as nursery:  # it wakes: another holder is read there
                nursery.start_soon(first.run)
                await first.lost()
                nursery.cancel_scope.cancel()
            assert second.number == 1


async def test_a_lease_that_ran_out_while_redis_was_away_is_still_its_holders(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with scene(server.url) as made:
            first, _ = await made.supervisor(instance(1))
            await first.take()
            second, _ = await made.supervisor(instance(2))
            await until(lambda: second.is_standby)
            with redis.Redis(unix_socket_path=str(server.socket)) as client:
                client.pexpire(KEYS.slot(1), 1)
            server.kill()
            server.start()
            with redis.Redis(unix_socket_path=str(server.socket)) as client:
                await until(lambda: client.get(KEYS.slot(1)))
                assert client.get(KEYS.slot(1)) == instance(1).name.encode()
            assert (first.number, second.number) == (1, 0)


async def test_a_lease_that_ran_out_is_left_to_its_holder_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, seen_to_run_out, taken_from = SlotStore.hold, list[float](), list[float]()

    async def watched(store: SlotStore, me: Holder, abandoned: Iterable[str] = ()) -> HeldSlot:
        named = list(abandoned)
        if named:
            taken_from.append(trio.current_time())
        held = await hold(store, me, named)
        if not held.slots[0].leased:
            seen_to_run_out.append(trio.current_time())
        return held

    with redis_server(tmp_path) as url:
        async with scene(url) as made:
            first, silence = await made.supervisor(instance(1))
            await first.take()
            second, _ = await made.supervisor(instance(2))
            await until(lambda: second.is_standby)
            monkeypatch.setattr(SlotStore, "hold", watched)
            silence.cancel()
            await second.take()
            assert taken_from[0] - seen_to_run_out[0] >= ABANDONED_SECONDS


async def test_typing_goes_out_from_the_lowest_connected_slot_alone(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url, most=3) as made:
            three = []
            for number in (1, 2, 3):
                slots, _ = await made.supervisor(instance(number))
                await slots.take()
                three.append(slots)
            for slots in three[1:]:
                slots.note_connected(True)
            await until(
                lambda: [slots.speaks for slots in three] == [True, True, False]
            )  # the first is not connected yet
            three[0].note_connected(True)
            await until(lambda: [slots.speaks for slots in three] == [True, False, False])
            await three[0].give_up_for_good()
            await until(lambda: [slots.speaks for slots in three] == [False, True, False])


async def test_who_is_not_ready_waits_while_another_is_connected_and_not_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, looks = SlotStore.connected, 0

    async def counted(store: SlotStore) -> list[str]:
        nonlocal looks
        found = await connected(store)
        looks += 1
        return found

    with redis_server(tmp_path) as url:
        async with scene(url, most=3) as made:
            first, _ = await made.supervisor(instance(1))
            with waiting_for("the first supervisor to be fit for its connection", WAIT_SECONDS):
                await first.wait_until_fit(trio.sleep_forever)
            await first.take()
            first.note_connected(True)
            second, _ = await made.supervisor(instance(2))
            await second.take()
            await until(lambda: second.has_successor)
            ready = trio.Event()
            fit: list[bool] = []

            async def wait() -> None:
                await second.wait_until_fit(ready.wait)
                fit.append(ready.is_set())

            monkeypatch.setattr(SlotStore, "connected", counted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await until(lambda: looks >= 3)
                assert fit == []
                ready.set()
            assert fit == [True]


async def test_two_that_leave_at_once_do_not_count_on_each_other(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url, most=3) as made:
            first, _ = await made.supervisor(instance(1))
            second, _ = await made.supervisor(instance(2))
            for slots in (first, second):
                await slots.take()
                slots.note_connected(True)
            await until(lambda: first.has_successor and second.has_successor)
            first.note_leaving()
            await until(lambda: not second.has_successor)
            assert first.has_successor
            second.note_leaving()
            await until(lambda: not first.has_successor)


async def test_a_supervisor_in_doubt_is_no_company_and_the_others_poll_until_it_is_heard(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with scene(url, most=2) as made:
            first, _ = await made.supervisor(instance(1))
            await first.take()
            first.note_connected(True)
            second, _ = await made.supervisor(instance(2))
            await second.take()
            second.note_connected(True)
            await until(lambda: first.has_company and second.has_company)
            first.note_doubt(1)
            await until(lambda: second in made.asked_for)
            await until(lambda: not second.has_company)
            assert first not in made.asked_for
            await until(lambda: second.speaks)
            first.note_heard(1)
            await until(lambda: second.has_company and not second.speaks)


async def test_a_doubt_is_told_when_redis_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubt, failures = SlotStore.doubt, 0

    async def counted(store: SlotStore, connection: str, *, is_doubted: bool) -> None:
        nonlocal failures
        try:
            await doubt(store, connection, is_doubted=is_doubted)
        except RedisFailed:
            failures += 1
            raise

    monkeypatch.setattr(SlotStore, "doubt", counted)
    with running_redis(tmp_path) as server:
        async with scene(server.url, most=2) as made:
            first, _ = await made.supervisor(instance(1))
            await first.take()
            server.kill()
            first.note_doubt(1)
            await until(lambda: failures >= 2)
            server.start()
            second, _ = await made.supervisor(instance(2))
            await until(lambda: second in made.asked_for)
