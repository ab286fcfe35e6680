"""What messages and tokens are counted against: each message once, whatever becomes of its runs; tokens together with what they were used for."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio

from bus.records.budgets import ADMITTED, DAY_MS, Charge, Limit
from bus.records.keys import Keys
from bus.records.records import Job
from bus.steps.job_steps import Finished
from bus.steps.kept_steps import KeptSteps
from bus.steps.recovery import Reclaim
from bus.steps.store import MOST_WAITING_IN_ALL
from bus.steps.thread_steps import Admitted, Noted
from bus.transport.lua import Scripts
from tests.bus.builders import AGENT, BUS_KEY, PEER
from tests.bus.redis_scene import DirectClient, RedisScene, RedisSupervisor, RedisWorker
from tests.bus.scenes import Scene, Worker, at_once
from tests.bus.steps.test_rules_threads import WAYS, runs_again
from tests.bus.talk import Talk, talk_and_worker

ANN, BEN = PEER[0], "ben"
A_MINUTE = Limit(f"s:{ANN}", "messages_per_minute", 2)
IN_ALL = Limit("all:everybody", "messages_per_day", 3)
TOKENS = Limit(f"s:{ANN}", "tokens_per_day", 100)
WITHIN = Admitted("admitted")


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    made = RedisScene(redis_url)
    yield made
    made.close()


async def next_job(talk: Talk, worker: Worker, seq: int, sender: str = ANN) -> Job:
    await talk.accept(seq, sender=sender)
    job = await worker.take()
    assert job is not None
    return job


async def admit(worker: Worker, job: Job, *limits: Limit, tells: bool = True) -> Admitted:
    return await worker.steps.admit(job, limits, worker.steps.seal_entry(job, ADMITTED, b""), tells=tells)


async def said(talk: Talk, worker: Worker, seq: int, *limits: Limit, tells: bool = True, sender: str = ANN) -> Admitted:
    """A message whose job begins and ends."""
    job = await next_job(talk, worker, seq, sender)
    admitted = await admit(worker, job, *limits, tells=tells)
    assert await worker.steps.finish(job) is Finished.DONE
    return admitted


async def use(worker: Worker, job: Job, name: str, tokens: int, value: bytes = b"1") -> Noted:
    entry = worker.steps.seal_entry(job, name, value)
    noted = await worker.steps.note(job, name, entry, charge=Charge((f"s:{ANN}",), tokens))
    assert await worker.steps.note(job, name, entry, charge=Charge((f"s:{ANN}",), tokens)) is noted, (
        "no answer came: it is asked again"
    )
    return noted


async def test_so_many_within_any_minute_and_who_is_beyond_it_is_told_once_a_minute(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    assert await said(talk, worker, 1, A_MINUTE) == WITHIN
    await scene.time_passes(40_000)
    assert await said(talk, worker, 2, A_MINUTE) == WITHIN
    assert await said(talk, worker, 3, A_MINUTE) == Admitted("beyond", 0, is_told=True)
    assert await said(talk, worker, 4, A_MINUTE) == Admitted("beyond", 0)
    await scene.time_passes(21_000)
    assert await said(talk, worker, 5, A_MINUTE) == WITHIN, "the first is a minute ago; what was beyond counts nothing"
    assert await said(talk, worker, 6, A_MINUTE) == Admitted("beyond", 0)
    await scene.time_passes(39_001)
    assert await said(talk, worker, 7, A_MINUTE) == WITHIN
    assert await said(talk, worker, 8, A_MINUTE) == Admitted("beyond", 0, is_told=True)


async def test_all_limits_count_or_none_and_each_sender_is_told(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        assert await said(talk, worker, seq, A_MINUTE, IN_ALL) == WITHIN
    assert await said(talk, worker, 3, A_MINUTE, IN_ALL) == Admitted("beyond", 0, is_told=True)
    assert await said(talk, worker, 4, IN_ALL, sender=BEN) == WITHIN, "what was beyond one is counted for none"
    assert await said(talk, worker, 5, IN_ALL, sender=BEN) == Admitted("beyond", 0, is_told=True)
    assert await said(talk, worker, 6, A_MINUTE, IN_ALL) == Admitted("beyond", 0)
    assert await said(talk, worker, 7, IN_ALL, tells=False, sender="cleo") == Admitted("beyond", 0)
    assert await said(talk, worker, 8, IN_ALL, sender="cleo") == Admitted("beyond", 0, is_told=True)


@pytest.mark.parametrize("way", WAYS)
async def test_a_message_is_counted_once_whatever_becomes_of_its_runs(scene: Scene, way: str) -> None:
    talk, worker = await talk_and_worker(scene)
    job = await next_job(talk, worker, 1)
    one = Limit(f"s:{ANN}", "messages_per_day", 1)
    assert await admit(worker, job, one) == WITHIN
    assert await admit(worker, job, one) == WITHIN, "no answer came"
    again = await runs_again(talk, worker, job, way)
    assert ADMITTED in (await worker.steps.start(again)).journal
    assert await admit(worker, again, one) == WITHIN
    assert await admit(worker, job, one) == Admitted("fenced")
    await worker.steps.finish(again)
    assert await said(talk, worker, 2, one) == Admitted("beyond", 0, is_told=True)


async def test_who_was_told_by_a_job_is_told_by_each_run_of_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    assert await said(talk, worker, 1, Limit(f"s:{ANN}", "messages_per_day", 1)) == WITHIN
    job = await next_job(talk, worker, 2)
    for _ in range(2):
        assert await admit(worker, job, Limit(f"s:{ANN}", "messages_per_day", 1)) == Admitted("beyond", 0, is_told=True)
    await worker.steps.hand_back(job, has_begun=True)
    again = await worker.take()
    assert again is not None
    assert await admit(worker, again, Limit(f"s:{ANN}", "messages_per_day", 1)) == Admitted("beyond", 0, is_told=True)


async def test_tokens_are_paid_once_with_what_they_were_used_for_and_a_day_later_all_is_as_new(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    job = await next_job(talk, worker, 1)
    assert await admit(worker, job, TOKENS) == WITHIN
    assert await use(worker, job, "llm#1", 60) is Noted.NOTED
    assert await use(worker, job, "unfinished#1", 39) is Noted.NOTED
    await worker.steps.finish(job)
    later = await next_job(talk, worker, 2)
    assert await admit(worker, later, TOKENS) == WITHIN, "99 of 100"
    assert await use(worker, later, "llm#1", 1) is Noted.NOTED
    await worker.steps.finish(later)
    assert await said(talk, worker, 3, TOKENS) == Admitted("beyond", 0, is_told=True)
    await scene.time_passes(DAY_MS)
    assert await said(talk, worker, 4, TOKENS) == WITHIN


async def test_who_has_lost_the_job_pays_nothing_and_no_room_costs_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    job = await next_job(talk, worker, 1)
    entry = worker.steps.seal_entry(job, "llm#1", b"1")
    full = await worker.steps.note(job, "llm#1", entry, most=1, charge=Charge((f"s:{ANN}",), 1_000))
    assert full is Noted.FULL
    await worker.steps.hand_back(job, has_begun=True)
    assert await worker.steps.note(job, "llm#1", entry, charge=Charge((f"s:{ANN}",), 1_000)) is Noted.FENCED
    again = await worker.take()
    assert again is not None
    assert await admit(worker, again, TOKENS) == WITHIN


MESSAGES, MOST, TOKENS_OF_EACH, LEAST_DEATHS = 24, 7, 10, 5


@dataclass
class Race:
    """Supervisors and workers of several processes: each thread has connections of its own. What `ended` has is done for good."""

    url: str
    admitted: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    deaths: int = 0

    def run(self, number: int) -> None:
        """Takes jobs, dies in the middle of some, and gives those that somebody has, alive or not, to somebody else."""
        dice, client = random.Random(number), DirectClient(self.url, Scripts.load())
        talk = Talk(RedisSupervisor(client, f"supervisor-{number}", MOST_WAITING_IN_ALL))
        until = time.monotonic() + 30
        try:
            while len(self.ended) < MESSAGES and time.monotonic() < until:
                name = f"worker-{number}-{self.deaths}"
                worker = RedisWorker(name, KeptSteps(client, AGENT, BUS_KEY, name), client, Keys(AGENT))
                job = at_once(worker.take())
                if job is not None:
                    self._handle(worker, job, dice)
                elif dice.random() < 0.2:
                    at_once(talk.reclaim(Reclaim()))
        finally:
            client.close()

    def _handle(self, worker: RedisWorker, job: Job, dice: random.Random) -> None:
        admitted = at_once(admit(worker, job, Limit(f"s:{ANN}", "messages_per_day", MOST)))
        if self._dies(dice) or admitted.outcome == "fenced":
            return
        (self.admitted if admitted.outcome == "admitted" else self.beyond).add(job.job_id)
        if admitted.outcome == "admitted" and "llm#1" not in at_once(worker.steps.start(job)).journal:
            entry = worker.steps.seal_entry(job, "llm#1", b"1")
            charge = Charge((f"s:{ANN}",), TOKENS_OF_EACH)
            at_once(worker.steps.note(job, "llm#1", entry, only_new=True, charge=charge))
        if not self._dies(dice) and at_once(worker.steps.finish(job)) is Finished.DONE:
            self.ended.add(job.job_id)

    def _dies(self, dice: random.Random) -> bool:
        dies = self.deaths < LEAST_DEATHS or dice.random() < 0.2  # whose dice fall is the scheduler's
        self.deaths += dies
        return dies


async def test_several_supervisors_and_workers_that_race_and_die_let_no_message_more_through_and_have_tokens_paid_once(
    redis: RedisScene,
) -> None:
    """Each on a connection of its own, and jobs are taken from living workers too."""
    talk, _ = await talk_and_worker(redis)
    for number in range(MESSAGES):
        await talk.accept(1, conversation=f"conversation-{number}")
    race = Race(redis.url)
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(trio.to_thread.run_sync, race.run, number)
    assert len(race.ended) == MESSAGES
    assert (len(race.admitted), len(race.beyond), race.deaths >= LEAST_DEATHS) == (MOST, MESSAGES - MOST, True)
    assert await redis.used_today(f"s:{ANN}") == (MOST, MOST * TOKENS_OF_EACH)


async def test_a_clock_that_goes_back_shuts_nobody_out(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    key = redis.keys.budget(f"s:{ANN}")
    far = await talk.supervisor.store.now_ms() + 10 * DAY_MS
    redis.client.ask(
        "HSET",
        key,
        "day",
        far // DAY_MS,
        "messages",
        9,
        "tokens",
        9_999,
        "recent",
        f"{far} {far}",
        "told",
        f"{far} other",
    )
    limits = (A_MINUTE, TOKENS, Limit(f"s:{ANN}", "messages_per_day", 2))
    assert await said(talk, worker, 1, *limits) == WITHIN
    assert 0 < int(str(redis.client.ask("TTL", key))) <= 2 * 86_400, "what nobody uses goes by itself"
    assert await said(talk, worker, 2, *limits) == WITHIN
    assert await said(talk, worker, 3, *limits) == Admitted("beyond", 0, is_told=True)
