"""A thread that notes, shows a card, is stopped, asks, is answered, reminds, keeps a state and is told something from outside: each step of it may
die before it or after it, or be cut, so that it is asked for again. In the end everything is as it is without.

The same over the bus in memory and the one in Redis. (test_crash_points.py has what is older, script by script.)
"""

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from bus.records.cards import CardMove
from bus.records.outside import OUTSIDE, SendKey
from bus.records.records import Job, Reply, ReplyRecord, decode_reply_record
from bus.records.timers import Timer
from bus.steps.job_steps import Carded, Emitted, Failed, Finished, Started
from bus.steps.outbox import Committed
from bus.steps.outside import SendOutcome
from bus.steps.placing import Placed
from bus.steps.recovery import Reclaim
from bus.steps.store import Intake, Source
from bus.steps.thread_steps import Bound, Effect, Noted
from bus.steps.timers import Fired
from tests.bus.builders import CARD_ANSWERED, CONVERSATION, arrival_of, job_of, placed_job, reply
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import MemoryScene, Scene, Supervisor, Worker
from tests.bus.steps.test_rules_outside import said
from tests.bus.talk import Talk, taken

OTHER = "other"
RECALL = Reply(kind="recall", content_type="recall", payload={"job_id": "job", "place": "0"})
CARD, WAIT = "card", "w"
FAR_MS = 1 << 50
WAYS = ("dies before", "dies after", "is cut")
NEW = ("note", "emit_card", "emit_to", "settle", "bind_wait", "stop", "fire", "place", "send", "let_out")
OLD = ("accept", "start", "emit", "commit", "confirm")
BESIDE = ("declare", "forget", "acted", "drop")
"""What supervisors do beside threads: timers of their own, and damaged ones; a recall that the relay has heard; dead letters that are dropped."""
TWO = [{one: "dies after", other: "dies before"} for one, other in itertools.permutations(NEW, 2)] + [
    {one: way, other: "dies after"} for one in NEW for other in OLD for way in WAYS
]


class Died(Exception):
    """The process is gone at this point."""


@dataclass
class Mortal:
    """A half of the bus, or a part of it, whose process dies at each planned step, once; or which asks again, since no answer came."""

    half: Any
    plan: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.half, name)
        if name in ("steps", "store", "outbox", "outside", "placing", "timers", "dead"):
            return Mortal(found, self.plan)
        return self._mortal(name, found) if name in NEW + OLD + BESIDE else found

    def _mortal(self, name: str, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def act(*arguments: object, **named: object) -> object:
            way = self.plan.pop("stop" if named.get("stops") else name, "")
            if way == "dies before":
                raise Died(name)
            answer = await step(*arguments, **named)
            if way == "dies after":
                raise Died(name)
            return await step(*arguments, **named) if way == "is cut" else answer

        return act


@dataclass
class Life:
    """A thread on its whole way, in as many lives of the processes as it takes. `received`: what the relay has, each once, by its id."""

    scene: Scene
    plan: dict[str, str]
    lives: int = 0
    received: list[tuple[str, str]] = field(default_factory=list)

    async def goes_on(self) -> bool:
        """One life, to its death or to where there is nothing left to do. True when it got there."""
        self.lives += 1
        half = await self.scene.supervisor(f"supervisor-{self.lives}")
        await half.check()
        supervisor = cast("Supervisor", Mortal(half, self.plan))
        worker = cast("Worker", Mortal(await self.scene.worker(f"worker-{self.lives}"), self.plan))
        try:
            await self._take_over(supervisor)
            await self._take_in(supervisor)
            while (
                await self._handle(supervisor, worker)
                or await self._send(supervisor)
                or await self._fire(supervisor)
                or await supervisor.outside.let_out()
                or await self._send(supervisor)  # it was let out, and the answer did not come
            ):
                pass
        except Died:
            return False
        return True

    async def _take_over(self, supervisor: Supervisor) -> None:
        recovery = supervisor.recovery
        for held in (recovery.jobs, recovery.replies):
            for pending in await recovery.pending(held):
                await recovery.reclaim(held, pending, Reclaim())
        for conversation in await supervisor.outbox.all():
            former = await supervisor.outbox.holder_of(conversation)
            record = await supervisor.outbox.resend(conversation, former_holder=former)
            if record is not None:
                await self._deliver(supervisor, conversation, record.client_message_id)

    async def _take_in(self, supervisor: Supervisor) -> None:
        """Who asks for something asks until it is taken in."""
        for seq in (1, 2):
            version = await Talk(supervisor).version()
            await supervisor.store.accept(arrival_of(seq, version, source=Source.POLL), job_of(seq))
        assert await supervisor.placing.place(placed_job("event")) in (Placed.PLACED, Placed.ALREADY)
        for name in ("news", "more"):
            key = SendKey(name.encode(), b"said")
            sent = await supervisor.outside.send(
                CONVERSATION, said(name), f"{OUTSIDE}{name}", key=key, budgets=supervisor.store.budgets
            )
            assert sent in (SendOutcome.QUEUED, SendOutcome.WAITS, SendOutcome.ALREADY)

    async def _handle(self, supervisor: Supervisor, worker: Worker) -> bool:
        job = await worker.take()
        if job is None:
            return False
        if job.job_id == f"{CONVERSATION}-2":
            await self._answers(worker, job)
            return True
        started = await worker.steps.start(job)
        assert started.outcome == "started"
        if job.job_id == f"{CONVERSATION}-1":
            await self._asks(supervisor, worker, job, started)
        else:
            state = await self._state(worker, job)
            await self._ends(worker.steps.settle(job, "done", [state], last=[("0", reply("0"))]))
        return True

    async def _asks(self, supervisor: Supervisor, worker: Worker, job: Job, started: Started) -> None:
        steps = worker.steps
        if "ticket#1" not in started.journal:
            version, sold = await steps.read_stored("sold")
            change = steps.store_effect("sold", version, b"%d" % (int(sold or b"0") + 1))
            entry = steps.seal_entry(job, "ticket#1", b"ticket")
            assert await steps.note(job, "ticket#1", entry, only_new=True, change=change) is Noted.NOTED
        if "0" not in started.places:
            assert await steps.emit(job, "0", reply("0")) in (Emitted.QUEUED, Emitted.ALREADY)
        if "1" not in started.places:
            shown = await steps.emit_card(job, "1", reply("1"), CardMove(CARD, "progress"))
            assert shown.outcome in (Carded.QUEUED, Carded.ALREADY)
        if "2" not in started.places:
            assert await steps.emit_to(job, OTHER, "2", reply("2")) in (Emitted.QUEUED, Emitted.ALREADY)
        arrival = arrival_of(3, await Talk(supervisor).version(), source=Source.POLL)
        taken_in = await supervisor.store.accept(arrival, job_of(3, payload=CARD_ANSWERED), stops=CARD)
        assert taken_in in (Intake.ACCEPTED, Intake.DUPLICATE)
        assert await steps.stopped(job) == CARD, "also whoever runs it again knows"
        effects: list[Effect] = [("wait", WAIT, steps.seal_wait(job, WAIT, b"wait"), "")]
        for name, due_ms in ((WAIT, FAR_MS), ("digest", 1)):
            timer = Timer(id=name, conversation_id=CONVERSATION, due_ms=due_ms, kind="reminder", name=name)
            effects.append(("timer", name, due_ms, steps.seal_timer(timer)))
        await self._ends(steps.settle(job, "waiting", effects, last=[("q", reply("q"))]))

    async def _answers(self, worker: Worker, job: Job) -> None:
        steps = worker.steps
        [wait] = await steps.open_waits(job)
        assert wait.bound_to in ("", job.job_id)
        assert await steps.bind_wait(job, wait.id) is Bound.BOUND
        started = await steps.start(job)
        assert started.outcome == "started"
        if "more#1" not in started.journal:
            assert await steps.note(job, "more#1", steps.seal_entry(job, "more#1", b"more")) is Noted.NOTED
        said_here = steps.exchange_effect(job, await (await self.scene.supervisor("clock")).store.now_ms(), b"said")
        dropped: list[Effect] = [("drop_wait", WAIT, "", ""), ("drop_timer", WAIT, "", "")]
        effects = [*dropped, await self._state(worker, job), said_here]
        await self._ends(steps.settle(job, "done", effects, last=[("3", reply("3"))]))

    async def _state(self, worker: Worker, job: Job) -> Effect:
        count = int(await worker.steps.read_state(job) or b"0")
        return worker.steps.state_effect(job, b"%d" % (count + 1))

    async def _ends(self, end: Awaitable[Finished]) -> None:
        """Asked for again after it was cut, the job is nobody's any more."""
        assert await end in (Finished.DONE, Finished.FENCED)

    async def _fire(self, supervisor: Supervisor) -> bool:
        timers, now_ms = supervisor.timers, await supervisor.timers.now_ms()
        for alarm in await timers.due(now_ms):
            packed = await timers.read(alarm)
            assert packed is not None
            assert await timers.fire(packed, timers.opened(packed, alarm), now_ms) in (Fired.FIRED, Fired.CHANGED)
            return True
        return False

    async def _send(self, supervisor: Supervisor) -> bool:
        entry = await supervisor.take_reply()
        if entry is None:
            return False
        record = decode_reply_record(entry.fields["r"])
        commit = await Talk(supervisor).commit(entry, cmid_of(record))
        assert commit.outcome in (Committed.COMMITTED, Committed.ALREADY)
        await self._deliver(supervisor, record.conversation_id, cmid_of(record))
        return True

    async def _deliver(self, supervisor: Supervisor, conversation: str, cmid: str) -> None:
        if (conversation, cmid) not in self.received:
            self.received.append((conversation, cmid))
        await supervisor.outbox.confirm(conversation, cmid, f"message of {cmid}", 10 + len(self.received))


def cmid_of(record: ReplyRecord) -> str:
    return f"{record.job_id}/{record.place}"


JOBS = (f"{CONVERSATION}-1", f"{CONVERSATION}-2", "timer:event:1", "timer:digest:1")
RECEIVED = Counter(
    {
        **{(CONVERSATION, f"{JOBS[0]}/{place}"): 1 for place in ("0", "1", "q")},
        (OTHER, f"{JOBS[0]}/2"): 1,
        (CONVERSATION, f"{JOBS[1]}/3"): 1,
        **{(CONVERSATION, f"{job}/0"): 1 for job in JOBS[2:]},
        **{(CONVERSATION, f"{OUTSIDE}{name}/0"): 1 for name in ("news", "more")},
    }
)


async def lives_through(scene: Scene, plan: dict[str, str]) -> None:
    """With this on the way, everything is in the end as it is without."""
    talk = Talk(await scene.supervisor("before"))
    await talk.supervisor.check()
    await talk.accept(1, conversation=OTHER)
    worker = await scene.worker("before")
    first = await worker.take()
    assert first is not None
    await worker.steps.finish(first)
    life = Life(scene, dict(plan))
    while not await life.goes_on():
        assert life.lives <= len(plan)
    assert life.plan == {}, "a step was never taken"
    received = [one for one in life.received if one[0] == CONVERSATION and one[1].startswith(JOBS[0])]
    assert [cmid.rpartition("/")[2] for _, cmid in received] == ["0", "1", "q"]
    assert Counter(life.received) == RECEIVED
    assert await scene.leftovers() == []
    facts = await scene.facts()
    assert (facts.busy, facts.waiting, facts.counted, facts.waits) == (frozenset(), 0, {}, {})
    assert await talk.supervisor.dead.count() == 0
    assert await talk.supervisor.timers.due(FAR_MS) == []
    steps = worker.steps
    assert await steps.read_state(first) is None
    await talk.accept(4)
    last = await worker.take()
    assert last is not None
    assert await steps.read_state(last) == b"3"
    assert (await steps.read_stored("sold"))[1] == b"1"
    assert steps.open_exchanges(last, await steps.read_exchanges(last), bytes) == [b"said"]
    assert await steps.open_waits(last) == []


async def test_nothing_goes_wrong_where_nobody_dies(scene: Scene) -> None:
    await lives_through(scene, {})


@pytest.mark.parametrize("step", NEW)
async def test_each_new_step_may_die_before_and_after_and_be_cut(redis_url: str, step: str) -> None:
    for plan in ({step: way} for way in WAYS):
        for scene in (MemoryScene(), RedisScene(redis_url)):
            await lives_through(scene, plan)
            scene.close()


async def test_so_may_two_of_them_and_each_with_an_older_one() -> None:
    for plan in TWO:
        await lives_through(MemoryScene(), plan)


async def done_beside(scene: Scene, plan: dict[str, str]) -> None:
    """There are a damaged timer, a recall, and the dead letter of an answer; with these deaths on the way each is done with once."""
    talk = Talk(await scene.supervisor("before"))
    await talk.supervisor.check()
    worker = await scene.worker("before")
    await talk.accept(1)
    asking = await taken(worker)
    wait: Effect = ("wait", WAIT, worker.steps.seal_wait(asking, WAIT, b"wait"), "")
    damaged: Effect = ("timer", "damaged", 1, b"\x91")
    deadline = Timer(id=WAIT, conversation_id=CONVERSATION, due_ms=FAR_MS, kind="deadline", name=WAIT)
    sets: Effect = ("timer", WAIT, FAR_MS, worker.steps.seal_timer(deadline))
    assert await worker.steps.emit(asking, "0", RECALL) is Emitted.QUEUED
    assert await worker.steps.settle(asking, "waiting", [wait, sets, damaged]) is Finished.DONE
    await talk.accept(2)
    answer = await taken(worker)
    assert await worker.steps.bind_wait(answer, WAIT) is Bound.BOUND
    assert await worker.steps.fail(answer, "broke", None) is Failed.DEAD
    left, lives = dict(plan), 0
    while not await _all_is_done(scene, left, lives):
        lives += 1
        assert lives <= len(plan)
    assert left == {}, "a step was never taken"
    assert len(await talk.supervisor.timers.due(FAR_MS)) == 1, "of what was declared"
    assert await talk.supervisor.dead.count() == 0
    await talk.accept(3)
    last = await taken(worker)
    assert await worker.steps.open_waits(last) == []
    await worker.steps.finish(last)
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []
    facts = await scene.facts()
    assert (facts.busy, facts.counted, facts.waits) == (frozenset(), {}, {})


async def _all_is_done(scene: Scene, plan: dict[str, str], lives: int) -> bool:
    half = await scene.supervisor(f"supervisor-{lives}")
    await half.check()
    supervisor = cast("Supervisor", Mortal(half, plan))
    try:
        for pending in await half.recovery.pending(half.recovery.replies):
            await half.recovery.reclaim(half.recovery.replies, pending, Reclaim())
        now_ms = await half.timers.now_ms()
        await supervisor.timers.declare("clean", 3600, now_ms)
        for alarm in await half.timers.due(now_ms):
            await supervisor.timers.forget(await half.timers.read(alarm), alarm)
        while (entry := await half.take_reply()) is not None:
            said_at = decode_reply_record(entry.fields["r"])
            answers = (said_at.job_id, said_at.place)
            await supervisor.outbox.acted(CONVERSATION, entry.id, answers=answers, what="recall")
        for letter in await half.dead.first():
            await supervisor.dead.drop(letter)
    except Died:
        return False
    return True


@pytest.mark.parametrize("step", BESIDE)
async def test_so_may_each_step_beside_threads_and_two_of_them(redis_url: str, step: str) -> None:
    for way in WAYS:
        for scene in (MemoryScene(), RedisScene(redis_url)):
            await done_beside(scene, {step: way})
            scene.close()
        for other in BESIDE:
            if other != step:
                await done_beside(MemoryScene(), {step: way, other: "dies after"})
