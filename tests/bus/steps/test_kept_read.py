"""What a worker remembers of the histories that it has read is what a fresh read finds, whatever happens to them meanwhile."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from bus.records.keys import JOBS_GROUP
from bus.records.records import Job
from bus.steps.job_steps import Failed, Finished
from bus.steps.thread_steps import Effect
from bus.transport.client import Commands
from bus.transport.lua import Argument
from bus.transport.readers import decode_entries
from bus.transport.wire import RedisUnavailable, Value
from tests.bus.builders import reply
from tests.bus.redis_scene import RedisScene, RedisWorker
from tests.bus.talk import Talk, talk_of


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


@dataclass
class Lossy:
    """Counts the reads of a history, whole and from a known record on; the answer to a script of this name is lost once."""

    commands: Commands
    whole: int = 0
    followed: int = 0
    loses: str = ""

    async def command(self, *command: Argument) -> Value:
        if command[0] == "LRANGE":
            self.whole += command[2] == 0
            self.followed += command[2] != 0
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        answer = await self.commands.script(name, keys, *arguments)
        if name == self.loses:
            self.loses = ""
            raise RedisUnavailable("the answer is lost")
        return answer


@dataclass
class Played:
    """A play of a supervisor and two workers that remember, drawn by a seed."""

    redis: RedisScene
    talk: Talk
    lossy: Lossy
    draw: random.Random
    workers: dict[str, RedisWorker] = field(default_factory=dict)
    seq: int = 0
    remembered: tuple[object, int] | None = None
    hung: tuple[str, Job] | None = None

    async def says(self) -> None:
        self.seq += 1
        await self.talk.accept(self.seq)

    async def turn(self) -> None:
        draw = self.draw
        for _ in range(draw.randint(1, 2)):
            await self.says()
        while (job := await self.workers[name := draw.choice("aab")].take()) is not None:
            await self.run(name, job)
        if draw.random() < 0.1:
            self.remembered = (await self.redis.remember(), self.seq)
        elif self.remembered is not None and draw.random() < 0.1:
            await self.redis.go_back(self.remembered[0])
            self.seq = self.remembered[1]

    async def run(self, name: str, job: Job) -> None:
        draw = self.draw
        if self.hung is not None and draw.random() < 0.3:
            await self.workers[self.hung[0]].steps.read_both(self.hung[1])
            self.hung = None
        for _ in range(draw.randint(0, 2)):
            await self.reads(name, job)
        if draw.random() < 0.05:
            remembered = await self.redis.remember()
            await self.end(name, job)
            await self.redis.go_back(remembered)
            again = await self.pending_again(name)
            assert again == job
            await self.reads(name, again)
        await self.end(name, job)

    async def reads(self, name: str, job: Job) -> None:
        """What the handler of a job sees is what one sees who has never read anything."""
        fresh = await self.redis.worker("fresh")
        assert isinstance(fresh, RedisWorker)
        mine = await self.seen_by(self.workers[name], job)
        followed, whole = self.lossy.followed, self.lossy.whole
        assert mine == await self.seen_by(fresh, job)
        self.lossy.followed, self.lossy.whole = followed, whole

    async def seen_by(self, worker: RedisWorker, job: Job) -> tuple[bytes | None, list[bytes]]:
        state, exchanges = await worker.steps.read_both(job)
        return state, worker.steps.open_exchanges(job, exchanges, bytes)

    async def effects(self, name: str, job: Job, body: bytes, *kinds: str) -> list[Effect]:
        steps, now_ms = self.workers[name].steps, await self.talk.supervisor.store.now_ms()
        made: dict[str, Callable[[], Effect]] = {
            "state": lambda: steps.state_effect(job, body),
            "exchange": lambda: steps.exchange_effect(job, now_ms, body),
            "forget": lambda: steps.forget_effect(job),
        }
        return [made[kind]() for kind in kinds]

    async def end(self, name: str, job: Job) -> None:
        draw, steps = self.draw, self.workers[name].steps
        match draw.choice(["settle"] * 8 + ["lost", "finish", "again", "dead", "hand_back", "dies"]):
            case "settle" | "lost" as how:
                kinds = draw.choice(
                    [("exchange",), ("state", "exchange"), ("state",), ("state", "exchange"), ("forget",), ()]
                )
                body = b"%d " % draw.randrange(1 << 30) + bytes(draw.randrange(1500))
                effects = await self.effects(name, job, body, *kinds)
                self.lossy.loses = "settle" if how == "lost" else ""
                try:
                    assert await steps.settle(job, "done", effects, last=[("0", reply("a"))]) is Finished.DONE
                except RedisUnavailable:
                    assert await steps.settle(job, "done", effects, last=[("0", reply("a"))]) is Finished.FENCED
                self.lossy.loses = ""
            case "finish":
                assert await steps.finish(job) is Finished.DONE
            case "again":
                assert await steps.fail(job, "broke", 0) is Failed.RETRY
                assert await self.talk.start_due() == 1
            case "dead":
                assert await steps.fail(job, "broke", None) is Failed.DEAD
            case "hand_back":
                assert not await steps.hand_back(job)
            case _:
                self.hung = (name, job)
                await self.talk.reclaim()

    async def pending_again(self, name: str) -> Job:
        """What a worker gets that reads its own pending entries again after its connection was lost."""
        command = ("XREADGROUP", "GROUP", JOBS_GROUP, name, "COUNT", 1, "STREAMS", self.redis.keys.jobs, "0")
        [entry] = decode_entries(await self.redis.client.command(*command))
        return self.workers[name].steps.unpack(entry.id, entry.fields)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_what_is_remembered_is_what_a_fresh_read_finds(redis: RedisScene, seed: int) -> None:
    """With failures, lost answers, hung runs, a Redis that goes back, what is forgotten and what is trimmed."""
    redis.commands = lossy = Lossy(redis.client)
    played = Played(redis, await talk_of(redis), lossy, random.Random(seed))
    for name in "ab":
        worker = await redis.worker(name)
        assert isinstance(worker, RedisWorker)
        played.workers[name] = worker
    store = played.talk.supervisor.store
    store.budgets = msgspec.structs.replace(store.budgets, history_bytes=40_000)
    await store.publish_bounds()
    for _ in range(150):
        await played.turn()
    assert min(lossy.followed, lossy.whole) > 20, "both ways were gone"
