"""A worker that knows the state and history of a conversation at the version of its job reads neither; and what it knows is what a fresh read finds."""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest

from bus.records.keys import JOBS_GROUP
from bus.records.records import Job
from bus.steps.job_steps import Emitted, Failed, Finished
from bus.steps.thread_steps import Effect
from bus.transport.client import Commands
from bus.transport.lua import Argument
from bus.transport.readers import decode_entries
from bus.transport.wire import RedisUnavailable, Value
from tests.bus.builders import CONVERSATION, reply
from tests.bus.redis_scene import RedisScene, RedisWorker
from tests.bus.talk import Talk, talk_of


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


@dataclass
class Counting:
    """Counts what is asked; the answer to a script of this name is lost once."""

    commands: Commands
    asked: list[str] = field(default_factory=list)
    loses: str = ""

    async def command(self, *command: Argument) -> Value:
        self.asked.append(str(command[0]))
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        self.asked.append(name)
        answer = await self.commands.script(name, keys, *arguments)
        if name == self.loses:
            self.loses = ""
            raise RedisUnavailable("the answer is lost")
        return answer


@dataclass
class Company:
    """A supervisor, workers that remember, and what was asked meanwhile."""

    redis: RedisScene
    talk: Talk
    counting: Counting
    workers: dict[str, RedisWorker] = field(default_factory=dict)
    seq: int = 0

    def worker(self, name: str) -> RedisWorker:
        return self.workers[name]

    async def says(self) -> None:
        self.seq += 1
        await self.talk.accept(self.seq)

    async def job(self, name: str) -> Job:
        await self.says()
        return await self.taken(name)

    async def taken(self, name: str) -> Job:
        job = await self.worker(name).take()
        assert job is not None
        return job

    def began(self) -> Value:
        return self.redis.client.ask("HGET", self.redis.keys.conversation(CONVERSATION), "began")

    async def effects(self, name: str, job: Job, body: bytes, *kinds: str) -> list[Effect]:
        steps = self.worker(name).steps
        now_ms = await self.talk.supervisor.store.now_ms()
        made: dict[str, Callable[[], Effect]] = {
            "state": lambda: steps.state_effect(job, body),
            "exchange": lambda: steps.exchange_effect(job, now_ms, body),
            "forget": lambda: steps.forget_effect(job),
        }
        return [made[kind]() for kind in kinds]

    async def leaves(self, name: str, job: Job, body: bytes, *kinds: str) -> None:
        effects = await self.effects(name, job, body, *kinds)
        assert await self.worker(name).steps.settle(job, "done", effects, last=[("0", reply("a"))]) is Finished.DONE

    async def reads(self, name: str, job: Job) -> tuple[bytes | None, list[bytes]]:
        """What the handler of a job sees, as it is in truth."""
        steps = self.worker(name).steps
        state, exchanges = await steps.read_both(job)
        found = (state, steps.open_exchanges(job, exchanges, bytes))
        assert found == await self.truth(job)
        return found

    async def truth(self, job: Job) -> tuple[bytes | None, list[bytes]]:
        """As who has never read anything finds it."""
        worker = await self.redis.worker("fresh")
        assert isinstance(worker, RedisWorker)
        steps, plain = worker.steps, msgspec.structs.replace(job, version="")
        before = list(self.counting.asked)
        state, exchanges = await steps.read_both(plain)
        self.counting.asked = before
        return state, steps.open_exchanges(plain, exchanges, bytes)

    async def asks(self, operation: Callable[[], Awaitable[object]]) -> list[str]:
        self.counting.asked.clear()
        await operation()
        return list(self.counting.asked)


@pytest.fixture
async def company(redis: RedisScene) -> Company:
    counting = Counting(redis.client)
    redis.commands = counting
    there = Company(redis, await talk_of(redis), counting)
    for name in ("a", "b", "former"):
        worker = await redis.worker(name)
        assert isinstance(worker, RedisWorker)
        there.workers[name] = worker
    return there


async def test_who_has_written_last_reads_nothing_and_who_has_not_asks(company: Company) -> None:
    job = await company.job("a")
    assert await company.asks(lambda: company.reads("a", job)) == ["GET", "LRANGE"]
    assert (job.version, await company.reads("a", job)) == ("", (None, []))
    await company.leaves("a", job, b"1", "state", "exchange")
    for number in range(2, 5):
        job = await company.job("a")
        assert await company.asks(partial(company.reads, "a", job)) == []
        assert await company.reads("a", job) == (b"%d" % (number - 1), [b"%d" % one for one in range(1, number)])
        await company.leaves("a", job, b"%d" % number, "state", "exchange")
    job = await company.job("b")
    assert await company.asks(lambda: company.reads("b", job)) == ["GET", "LRANGE"]
    await company.leaves("b", job, b"5", "exchange")
    job = await company.job("a")
    assert await company.asks(lambda: company.reads("a", job)) == ["GET", "LRANGE"]
    assert await company.reads("a", job) == (b"4", [b"1", b"2", b"3", b"4", b"5"])


async def test_a_run_that_changes_nothing_leaves_its_version_and_one_that_fails_none(company: Company) -> None:
    job = await company.job("a")
    await company.reads("a", job)
    await company.leaves("a", job, b"1", "state", "exchange")
    job = await company.job("a")
    version = job.version
    assert await company.worker("a").steps.finish(job) is Finished.DONE
    job = await company.job("a")
    assert job.version == version != ""
    assert await company.asks(lambda: company.reads("a", job)) == []
    assert await company.worker("a").steps.fail(job, "broke", None) is Failed.DEAD
    job = await company.job("a")
    assert job.version == ""
    assert await company.asks(lambda: company.reads("a", job)) == ["GET", "LRANGE"]


async def test_an_agent_that_keeps_nothing_has_no_version_and_ends_its_jobs_as_ever(company: Company) -> None:
    for _ in range(2):
        job = await company.job("a")
        assert job.version == ""
        steps = company.worker("a").steps
        assert await company.asks(partial(steps.finish, job)) == ["finish"]
        assert company.began() is None


async def test_a_message_that_waited_has_the_version_that_the_job_before_it_left(company: Company) -> None:
    job = await company.job("a")
    await company.says()
    await company.reads("a", job)
    await company.leaves("a", job, b"1", "state", "exchange")
    job = await company.taken("a")
    assert await company.asks(lambda: company.reads("a", job)) == []


async def test_each_part_is_known_by_itself(company: Company) -> None:
    steps = company.worker("a").steps
    job = await company.job("a")
    assert await steps.read_state(job) is None
    await company.leaves("a", job, b"1", "exchange")
    job = await company.job("a")
    assert await company.asks(lambda: steps.read_state(job)) == []
    assert await company.asks(lambda: steps.read_exchanges(job)) == ["LRANGE"], "it was written and never read"
    await company.leaves("a", job, b"2", "state", "exchange")
    job = await company.job("a")
    assert await company.asks(lambda: company.reads("a", job)) == []
    assert await company.reads("a", job) == (b"2", [b"1", b"2"])
    assert await steps.finish(job) is Finished.DONE
    await company.leaves("b", await company.job("b"), b"3", "state")
    await company.leaves("a", await company.job("a"), b"4", "exchange")
    job = await company.job("a")
    assert await steps.read_state(job) == b"3", "it has written without a look at the state"


async def test_what_a_hung_run_reads_behind_its_end_is_not_taken_for_what_it_was(company: Company) -> None:
    """Its Redis goes back to where that job began: the job's version is no name for what came later."""
    job = await company.job("a")
    await company.leaves("a", job, b"1", "state", "exchange")
    await company.says()
    remembered = await company.redis.remember()
    lost = await company.taken("a")
    await company.talk.reclaim()
    again = await company.taken("b")
    await company.leaves("b", again, b"2", "state", "exchange")
    await company.worker("a").steps.read_both(lost)
    await company.redis.go_back(remembered)
    job = await company.taken("a")
    assert job.version == lost.version != ""
    assert await company.reads("a", job) == (b"1", [b"1"])


async def test_a_run_whose_entry_was_taken_out_of_redis_writes_nothing_beside_the_next_one(company: Company) -> None:
    """The audit has begun the next job meanwhile: what is kept, and that job, are no longer the first one's."""
    await company.leaves("a", await company.job("a"), b"1", "state", "exchange")
    lost = await company.job("a")
    await company.reads("a", lost)
    await company.says()
    company.redis.client.ask("XDEL", company.redis.keys.jobs, lost.entry_id)
    store = company.talk.supervisor.store
    assert await company.talk.supervisor.recovery.audit(await store.now_ms() + 1) == 1
    job = await company.taken("b")
    await company.reads("b", job)
    steps, effects = company.worker("a").steps, await company.effects("a", lost, b"of the lost one", "state")
    assert await steps.settle(lost, "done", effects) is Finished.FENCED
    assert await steps.finish(msgspec.structs.replace(lost, version="")) is Finished.FENCED
    assert await steps.emit(lost, "0", reply("of the lost one")) is Emitted.FENCED
    assert await company.reads("b", job) == (b"1", [b"1"])
    await company.leaves("b", job, b"2", "exchange")
    job = await company.job("b")
    assert await company.asks(lambda: company.reads("b", job)) == []
    assert await company.reads("b", job) == (b"1", [b"1", b"2"])


async def test_what_a_former_version_writes_is_seen_beside_supervisors_of_either(company: Company) -> None:
    """It ends its job without a version; a supervisor of one hands jobs out without one."""
    for is_of_former in (False, True):
        job = await company.job("a")
        await company.reads("a", job)
        await company.leaves("a", job, b"new", "state", "exchange")
        if is_of_former:
            await accept_by_former(company)
            job = await company.taken("former")
            assert job.version == ""
        else:
            job = await company.job("former")
        await end_by_former(company, job, b"former")
        job = await company.job("a")
        assert job.version == ""
        assert (await company.reads("a", job))[0] == b"former"
        await company.leaves("a", job, b"new", "exchange")


async def accept_by_former(company: Company) -> None:
    """Takes a message in and knows nothing of versions, nor takes one away."""
    conversation, version = company.redis.keys.conversation(CONVERSATION), company.began()
    company.redis.client.ask("HDEL", conversation, "began")
    await company.says()
    if isinstance(version, bytes):
        company.redis.client.ask("HSET", conversation, "began", version)


async def end_by_former(company: Company, job: Job, body: bytes) -> None:
    """Writes, and takes `began` away as with every job's end."""
    await company.leaves("former", job, body, "state", "exchange")
    company.redis.client.ask("HDEL", company.redis.keys.conversation(CONVERSATION), "began")


@dataclass
class Played:
    """A play of two workers and a former one, drawn by a seed."""

    company: Company
    draw: random.Random
    known: int = 0
    asked: int = 0
    remembered: tuple[object, int] | None = None
    hung: tuple[str, Job] | None = None

    async def turn(self) -> None:
        here, draw = self.company, self.draw
        waiting = draw.randint(1, 2)
        is_alone = waiting == 1
        for _ in range(waiting):
            await (accept_by_former(here) if is_alone and draw.random() < 0.1 else here.says())
        if is_alone and draw.random() < 0.15:
            await end_by_former(here, await here.taken("former"), b"by a former version")
        while (job := await here.worker(name := draw.choice("aaab")).take()) is not None:
            await self.run(name, job)
        if draw.random() < 0.1:
            self.remembered = (await here.redis.remember(), here.seq)
        elif self.remembered is not None and draw.random() < 0.1:
            await here.redis.go_back(self.remembered[0])
            here.seq = self.remembered[1]

    async def run(self, name: str, job: Job) -> None:
        here, draw = self.company, self.draw
        if self.hung is not None and draw.random() < 0.3:
            await here.worker(self.hung[0]).steps.read_both(self.hung[1])
            self.hung = None
        for _ in range(draw.randint(0, 2)):
            self.count(await here.asks(lambda: here.reads(name, job)))
        if draw.random() < 0.2:
            assert await here.worker(name).steps.read_state(job) == (await here.truth(job))[0]
        if draw.random() < 0.05:
            remembered = await here.redis.remember()
            await self.end(name, job)
            await here.redis.go_back(remembered)
            again = await pending_again(here, name)
            assert again == job
            self.count(await here.asks(lambda: here.reads(name, again)))
        await self.end(name, job)

    def count(self, asked: list[str]) -> None:
        self.known += not asked
        self.asked += bool(asked)

    async def end(self, name: str, job: Job) -> None:
        here, draw = self.company, self.draw
        steps = here.worker(name).steps
        match draw.choice(["settle"] * 8 + ["lost", "finish", "again", "dead", "hand_back", "dies"]):
            case "settle" | "lost" as how:
                kinds = draw.choice(
                    [("exchange",), ("state", "exchange"), ("state",), ("state", "exchange"), ("forget",), ()]
                )
                body = b"%d " % draw.randrange(1 << 30) + bytes(draw.randrange(1500))
                effects = await here.effects(name, job, body, *kinds)
                here.counting.loses = "settle" if how == "lost" else ""
                try:
                    assert await steps.settle(job, "done", effects) is Finished.DONE
                except RedisUnavailable:
                    assert await steps.settle(job, "done", effects) is Finished.FENCED
                here.counting.loses = ""
            case "finish":
                assert await steps.finish(job) is Finished.DONE
            case "again":
                assert await steps.fail(job, "broke", 0) is Failed.RETRY
                assert await here.talk.start_due() == 1
            case "dead":
                assert await steps.fail(job, "broke", None) is Failed.DEAD
            case "hand_back":
                assert not await steps.hand_back(job)
            case _:
                self.hung = (name, job)
                await here.talk.reclaim()


async def pending_again(company: Company, name: str) -> Job:
    """What a worker gets that reads its own pending entries again after its connection was lost."""
    command = ("XREADGROUP", "GROUP", JOBS_GROUP, name, "COUNT", 1, "STREAMS", company.redis.keys.jobs, "0")
    [entry] = decode_entries(await company.redis.client.command(*command))
    return company.worker(name).steps.unpack(entry.id, entry.fields)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_what_is_known_is_what_a_fresh_read_finds(company: Company, seed: int) -> None:
    """Over two workers and a former version: with failures, lost answers, hung runs, a Redis that goes back, what is forgotten and what is trimmed."""
    store = company.talk.supervisor.store
    store.budgets = msgspec.structs.replace(store.budgets, history_bytes=40_000)
    await store.publish_bounds()
    played = Played(company, random.Random(seed))
    for _ in range(150):
        await played.turn()
    assert min(played.known, played.asked) > 20, "both ways were gone"
