"""Relations are kept up with: what cannot be noted or read now is read again, and nobody asks without a pause."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bus.transport.wire import RedisFailed, RedisUnavailable
from supervisor.peers.owners import Owners
from supervisor.peers.relations import MOST_WAITING, Relations
from supervisor.relay.frames import Relation
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import PAUSES

pytestmark = pytest.mark.pure

MOST_READINGS = 20


class Told(Owners):
    """Notes what it is told; the next calls fail as the test says."""

    def __init__(self) -> None:
        self.noted: list[Relation] = []
        self.read_at: list[float] = []
        self.fails_to_note: list[RedisFailed] = []
        self.fails_to_read: list[RestFailed | RedisFailed] = []
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def note(self, relation: Relation, status: str) -> None:  # noqa: ARG002 - as Owners
        await trio.lowlevel.checkpoint()
        if self.fails_to_note:
            raise self.fails_to_note.pop(0)
        self.noted.append(relation)

    async def refresh(self) -> None:
        self.read_at.append(trio.current_time())
        assert len(self.read_at) <= MOST_READINGS, "the relay is asked without end"
        await self.may_answer.wait()
        await trio.lowlevel.checkpoint()
        if self.fails_to_read:
            raise self.fails_to_read.pop(0)


class Scene:
    def __init__(self) -> None:
        self.told = Told()
        self.polls = PollWish()
        self.relations = Relations(self.told, self.polls)

    @property
    def readings(self) -> int:
        """After each the relay is to be polled."""
        return self.polls.times


@asynccontextmanager
async def running(made: Scene) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.relations.run)
        yield
        nursery.cancel_scope.cancel()


async def test_frames_are_noted_as_they_come_and_nothing_is_read(autojump_clock: trio.testing.MockClock) -> None:
    made = Scene()
    for number in range(3):
        made.relations.note(Relation(f"person-{number}"), "active")
    async with running(made):
        await trio.sleep(60)
    assert [relation.user_id for relation in made.told.noted] == ["person-0", "person-1", "person-2"]
    assert made.told.read_at == []


async def test_one_too_many_at_once_has_the_list_read_instead(autojump_clock: trio.testing.MockClock) -> None:
    made = Scene()
    for number in range(MOST_WAITING + 1):
        made.relations.note(Relation(f"person-{number}"), "active")
    async with running(made):
        await trio.sleep(60)
    assert (len(made.told.noted), len(made.told.read_at)) == (MOST_WAITING, 1)


async def test_a_list_that_cannot_be_read_is_read_again_after_a_pause_and_each_reading_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = Scene()
    made.told.fails_to_read += [RestFailed("relations", 503), RedisUnavailable("away")]
    made.relations.read_all()
    async with running(made):
        await trio.sleep(60)
    began = made.told.read_at[0]
    assert [at - began for at in made.told.read_at] == pytest.approx(
        [0, PAUSES.relations_retry, 2 * PAUSES.relations_retry]
    )
    assert made.readings == 3


async def test_a_list_is_not_read_again_before_the_relay_says(autojump_clock: trio.testing.MockClock) -> None:
    made = Scene()
    made.told.fails_to_read.append(RestFailed("relations", 429, retry_after_seconds=30.0))
    made.relations.read_all()
    async with running(made):
        await trio.sleep(60)
    first, second = made.told.read_at
    assert second - first == pytest.approx(30)


async def test_what_redis_could_not_note_is_read(autojump_clock: trio.testing.MockClock) -> None:
    made = Scene()
    made.told.fails_to_note.append(RedisUnavailable("away"))
    async with running(made):
        made.relations.note(Relation("person"), "revoked")
        made.relations.note(Relation("another"), "active")
        await trio.sleep(60)
    assert ([relation.user_id for relation in made.told.noted], len(made.told.read_at)) == (["another"], 1)


async def test_what_is_asked_for_while_it_is_read_is_read_once_more(autojump_clock: trio.testing.MockClock) -> None:
    made = Scene()
    made.told.may_answer = trio.Event()
    async with running(made):
        made.relations.read_all()
        await trio.sleep(1)
        made.relations.read_all()
        made.relations.read_all()
        made.told.may_answer.set()
        await trio.sleep(60)
    assert (len(made.told.read_at), made.readings) == (2, 2)
