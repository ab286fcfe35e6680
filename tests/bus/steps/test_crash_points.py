"""Every step of a message's way may die before it or right after it: all combinations, and each time every message is answered once,
in order, and the ratchet has not forked.

Whoever dies never learns whether the step had run. What it held goes to others: a new consumer does what is left to do.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from bus.records.cards import CardMove
from bus.records.kept import WAIT, pack_kept
from bus.records.records import ACT_SCHEMA, Job, OutboxRecord, Reply, decode_reply_record, unpack_job
from bus.records.timers import Timer
from bus.steps.job_steps import Finished, Started
from bus.steps.outbox import Committed
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.store import Intake, SessionWrite, Source
from bus.steps.thread_steps import Effect, Noted
from bus.steps.timers import Fired
from bus.transport.client import Commands
from bus.transport.lua import Argument
from bus.transport.wire import Value
from tests.bus.builders import AGENT, BUS_KEY, PEER, arrival_of, job_of, placed_job, reply
from tests.bus.history import Relay
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Supervisor, Worker
from tests.bus.talk import outbox_record

CONVERSATION = "conversation"
MAIN_STEPS = ("accept", "finish", "commit", "confirm")
RECALL = Reply(kind="recall", content_type="recall", payload={"job_id": "job", "place": "0"})
WAITING_STEPS = ("hold", "unhold")
OTHER_STEPS = ("start", "emit", "emit_card", "fail", "due", "advance_cursor")
THREAD_STEPS = ("note", "settle")
DEATHS = ("lives", "dies before", "dies after")


class Died(Exception):
    """The process is gone at this point."""


@dataclass
class Mortal:
    """A client whose process dies at each planned step, once."""

    commands: Commands
    plan: dict[str, str]

    async def command(self, *command: Argument) -> Value:
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        end = self.plan.pop(name, "lives")
        if end == "dies before":
            raise Died(name)
        answer = await self.commands.script(name, keys, *arguments)
        if end == "dies after":
            raise Died(name)
        return answer


@dataclass
class Life:
    """Two messages on their whole way, in as many lives of the processes as it takes."""

    scene: RedisScene
    fails_once: bool
    waits: bool = False
    """No message waits behind another: it waits at the relay."""

    most_held: int = 1000
    places: bool = False
    """A job that no message began joins them."""

    is_thread: bool = False
    """Its handler notes a result and leaves a wait behind; the next message's takes it away again."""

    reminds: bool = False
    """Each message sets a reminder, which is due at once."""

    acts: bool = False
    """Its handler also takes back what it has said, and says something by way of another conversation."""

    relay: Relay = field(default_factory=Relay)
    lives: int = 0
    has_failed: bool = False
    used: dict[str, bytes] = field(default_factory=dict)
    encryptions: "itertools.count[int]" = field(default_factory=itertools.count)

    async def goes_on(self) -> bool:
        """One life, to its death or to where there is nothing left to do. True when it got there."""
        self.lives += 1
        supervisor = await self.scene.supervisor(f"supervisor-{self.lives}")
        if self.waits:
            supervisor.store.budgets = msgspec.structs.replace(
                supervisor.store.budgets, waiting_bytes=0, most_held=self.most_held
            )
        worker = await self.scene.worker(f"worker-{self.lives}", Policies())
        try:
            await self._take_over(supervisor)
            await self._poll(supervisor)
            if self.places:
                await supervisor.placing.place(placed_job("digest"))
            while await self._handle(worker) or await self._send(supervisor) or await self._wake(supervisor):
                pass
        except Died:
            return False
        return True

    async def _take_over(self, supervisor: Supervisor) -> None:
        lease = supervisor.recovery
        for held in (lease.jobs, lease.replies):
            for pending in await lease.pending(held):
                await lease.reclaim(held, pending, Reclaim())
        for conversation in await supervisor.outbox.all():
            record = await supervisor.outbox.resend(
                conversation, former_holder=await supervisor.outbox.holder_of(conversation)
            )
            if record is not None:
                await self._deliver(supervisor, record)

    async def _poll(self, supervisor: Supervisor) -> None:
        cursor = await supervisor.store.cursor()
        page = self.relay.page(cursor, 8)
        for message in page:
            version = await self.session_version(supervisor)
            arrival = arrival_of(message.seq, version, source=Source.POLL)
            outcome = await supervisor.store.accept(arrival, job_of(message.seq))
            if outcome is Intake.HELD:
                outcome = await supervisor.store.hold(arrival, by_itself=True)
            assert outcome in (Intake.ACCEPTED, Intake.DUPLICATE, Intake.NOTED)
        if page:
            await supervisor.store.advance_cursor(cursor, page[-1].id)

    async def _handle(self, worker: Worker) -> bool:
        job = await worker.take()
        if job is None:
            return False
        started = await worker.steps.start(job)
        assert started.outcome == "started"
        if self.fails_once and not self.has_failed:
            await worker.steps.fail(job, "broke", 0)
            self.has_failed = True
            return True
        if self.is_thread:
            return await self._handle_thread(worker, job, started)
        if "0" not in started.places:
            await worker.steps.emit(job, "0", reply("0"))
        if "1" not in started.places:
            await worker.steps.emit_card(job, "1", reply("1"), CardMove(f"card of {job.job_id}", "info"))
        if self.acts and "2" not in started.places:
            await worker.steps.emit(job, "2", RECALL)
        if self.acts and "3" not in started.places:
            await worker.steps.emit_to(job, CONVERSATION, "3", reply("3"))
        if self.reminds and job.kind == "message":
            timer = Timer(id="digest", conversation_id=CONVERSATION, due_ms=1, kind="reminder", name="digest")
            sets: Effect = ("timer", timer.id, timer.due_ms, worker.steps.seal_timer(timer))
            assert await worker.steps.settle(job, "done", [sets]) is Finished.DONE
        else:
            assert await worker.steps.finish(job) is Finished.DONE
        return True

    async def _handle_thread(self, worker: Worker, job: Job, started: Started) -> bool:
        noted = started.journal.get("ticket#1")
        if noted is None:
            noted = b"of delivery %d" % job.deliveries
            entry = worker.steps.seal_entry(job, "ticket#1", noted)
            version, sold = await worker.steps.read_stored("sold")
            change = worker.steps.store_effect("sold", version, b"%d" % (int(sold or b"0") + 1))
            assert await worker.steps.note(job, "ticket#1", entry, only_new=True, change=change) is Noted.NOTED
        if "0" not in started.places:
            await worker.steps.emit(job, "0", reply("0"))
        self.used.setdefault(job.job_id, noted)
        assert self.used[job.job_id] == noted, "it was done twice"
        is_first = job.job_id == f"{CONVERSATION}-1"
        wait = pack_kept(b"", WAIT, CONVERSATION, "w", key=BUS_KEY, agent_id=AGENT)
        effect: Effect = ("wait", "w", wait, "") if is_first else ("drop_wait", "w", "", "")
        effects = [effect, *await self._kept(worker, job)]
        last = [("1", reply("1"))]
        assert await worker.steps.settle(job, "waiting" if is_first else "done", effects, last=last) is Finished.DONE
        return True

    async def _kept(self, worker: Worker, job: Job) -> list[Effect]:
        """It counts the jobs of its conversation, and keeps what was said."""
        count = int(await worker.steps.read_state(job) or b"0")
        now_ms = await (await self.scene.supervisor("clock")).store.now_ms()
        said = worker.steps.exchange_effect(job, now_ms, job.job_id.encode())
        return [worker.steps.state_effect(job, b"%d" % (count + 1)), said]

    async def _wake(self, supervisor: Supervisor) -> bool:
        return await self._start_due(supervisor) or await self._fire(supervisor) or await self._fetch(supervisor)

    async def _fire(self, supervisor: Supervisor) -> bool:
        """Whether a timer that is due has become a job."""
        timers, now_ms = supervisor.timers, await supervisor.timers.now_ms()
        for alarm in await timers.due(now_ms):
            packed = await timers.read(alarm)
            assert packed is not None
            assert await timers.fire(packed, timers.opened(packed, alarm), now_ms) is Fired.FIRED
            return True
        return False

    async def _fetch(self, supervisor: Supervisor) -> bool:
        """What waits at the relay, as far as there is room; whether a note has gone."""
        for note in await supervisor.notes.of(PEER[0]):
            arrival = arrival_of(note.seq, await self.session_version(supervisor), source=Source.HELD)
            outcome = await supervisor.store.accept(arrival, job_of(note.seq))
            if outcome is Intake.HELD:
                return False
            assert outcome in (Intake.LATE, Intake.DUPLICATE)
            if note.is_open:
                assert await supervisor.notes.reached(PEER[0], note, note.seq, f"{CONVERSATION}-{note.seq}")
            else:
                await supervisor.notes.forget(PEER[0], note)
            return True
        return False

    async def _start_due(self, supervisor: Supervisor) -> bool:
        return await supervisor.recovery.start_due(await supervisor.store.now_ms()) > 0

    async def _send(self, supervisor: Supervisor) -> bool:
        entry = await supervisor.take_reply()
        if entry is None:
            return False
        said = decode_reply_record(entry.fields["r"])
        answers, cmid = (said.job_id, said.place), f"{said.job_id}/{said.place}"
        if said.schema == ACT_SCHEMA:
            assert await supervisor.outbox.acted(CONVERSATION, entry.id, answers=answers, what="recall")
            return True
        version = await self.session_version(supervisor)
        record = msgspec.structs.replace(outbox_record(cmid), encrypted_payload=f"{version}#{next(self.encryptions)}")
        commit = await supervisor.outbox.commit(
            entry_id=entry.id,
            conversation_id=CONVERSATION,
            client_message_id=cmid,
            answers=answers,
            record=record,
            sessions=[SessionWrite(*PEER, version, b"sealed")],
            epoch=0,
            rate_per_second=0,
        )
        assert commit.outcome is Committed.COMMITTED
        await self._deliver(supervisor, record)
        return True

    async def session_version(self, supervisor: Supervisor) -> int:
        return (await supervisor.store.look(CONVERSATION, PEER, bytes(8))).session_version

    async def _deliver(self, supervisor: Supervisor, record: OutboxRecord) -> None:
        ack = self.relay.reads(record)
        await supervisor.outbox.confirm(CONVERSATION, ack.cmid, ack.message_id, ack.seq)


async def lives_through(
    url: str,
    plan: dict[str, str],
    *,
    fails_once: bool = False,
    waits: bool = False,
    messages: int = 2,
    most_held: int = 1000,
    places: bool = False,
    is_thread: bool = False,
    reminds: bool = False,
    acts: bool = False,
) -> None:
    """With these deaths on the way, everything is in the end as it is without them."""
    scene = RedisScene(url)
    mortal = Mortal(scene.client, {step: end for step, end in plan.items() if end != "lives"})
    planned = len(mortal.plan)
    scene.commands = mortal
    life = Life(scene, fails_once, waits, most_held, places, is_thread, reminds, acts)
    for _ in range(messages):
        life.relay.person_sends(CONVERSATION, None)
    while not await life.goes_on():
        assert life.lives <= planned
    assert mortal.plan == {}, "a step was never taken"
    jobs = [f"{CONVERSATION}-{seq}" for seq in range(1, messages + 1)] + ["timer:digest:1"] * (places or reminds)
    replies = [f"{job}/{place}" for job in jobs for place in ("0", "1", *(["3"] if acts else []))]
    assert life.relay.received == {CONVERSATION: replies}
    assert all(len(made) == 1 for made in life.relay.ciphertexts.values())
    scene.commands = scene.client
    assert await life.session_version(await scene.supervisor("last")) == messages + len(replies)
    facts = await scene.facts()
    assert (facts.waiting, facts.busy) == (0, frozenset())
    assert await scene.leftovers() == []
    assert scene.client.ask("XLEN", scene.keys.dead) == 0
    if is_thread:
        await each_job_is_kept_once(scene, jobs)
    scene.close()


async def each_job_is_kept_once(scene: RedisScene, jobs: list[str]) -> None:
    last = unpack_job(job_of(99), entry_id="", attempt=1, deliveries=1, key=BUS_KEY, agent_id=AGENT)
    steps = (await scene.worker("last", Policies())).steps
    assert await steps.read_state(last) == b"%d" % len(jobs)
    assert (await steps.read_stored("sold"))[1] == b"%d" % len(jobs)
    assert steps.open_exchanges(last, await steps.read_exchanges(last), bytes) == [job.encode() for job in jobs]


async def test_each_of_accept_finish_commit_and_confirm_may_die_before_and_after(redis_url: str) -> None:
    for ends in itertools.product(DEATHS, repeat=len(MAIN_STEPS)):
        await lives_through(redis_url, dict(zip(MAIN_STEPS, ends, strict=True)))


@pytest.mark.parametrize("step", OTHER_STEPS)
async def test_so_may_every_other_step_together_with_each_of_them(redis_url: str, step: str) -> None:
    for other, one, two in itertools.product(MAIN_STEPS, DEATHS[1:], DEATHS[1:]):
        await lives_through(redis_url, {step: one, other: two}, fails_once=step in ("fail", "due"))


async def test_so_may_the_placing_of_a_job_and_it_is_run_once(redis_url: str) -> None:
    for other, one, two in itertools.product(MAIN_STEPS, DEATHS[1:], DEATHS):
        await lives_through(redis_url, {"place_job": one, other: two}, messages=1, places=True)


async def test_so_may_the_setting_of_a_reminder_and_its_firing_and_it_is_said_once(redis_url: str) -> None:
    for one, two in itertools.product(DEATHS, DEATHS):
        await lives_through(redis_url, {"settle": one, "fire": two}, messages=1, reminds=True)
    for step, other, two in itertools.product(("settle", "fire"), ("accept", "commit", "confirm"), DEATHS[1:]):
        await lives_through(redis_url, {step: "dies after", other: two}, messages=1, reminds=True)


@pytest.mark.parametrize("step", ["acted", "emit_to"])
async def test_so_may_a_recall_and_what_is_said_elsewhere(redis_url: str, step: str) -> None:
    for other, one, two in itertools.product(("emit", "finish", "commit", "confirm"), DEATHS[1:], DEATHS[1:]):
        await lives_through(redis_url, {step: one, other: two}, messages=1, acts=True)


@pytest.mark.parametrize("step", THREAD_STEPS)
async def test_so_may_every_step_of_a_thread(redis_url: str, step: str) -> None:
    for other, one, two in itertools.product(("accept", "start", "emit", "fail", "commit"), DEATHS[1:], DEATHS[1:]):
        await lives_through(redis_url, {step: one, other: two}, fails_once=other == "fail", is_thread=True)
    for one, two in itertools.product(DEATHS, DEATHS):
        await lives_through(redis_url, {"note": one, "settle": two}, is_thread=True)


@pytest.mark.parametrize("step", WAITING_STEPS)
async def test_so_may_every_step_of_a_message_that_waits_at_the_relay(redis_url: str, step: str) -> None:
    for other, one, two in itertools.product((*MAIN_STEPS, "advance_cursor"), DEATHS[1:], DEATHS[1:]):
        await lives_through(redis_url, {step: one, other: two}, waits=True)
    for one, two in itertools.product(DEATHS, DEATHS):
        await lives_through(redis_url, {"hold": one, "unhold": two}, waits=True)


@pytest.mark.parametrize("step", [*MAIN_STEPS, "hold", "advance_cursor"])
async def test_so_may_every_step_of_messages_for_which_one_note_stands(redis_url: str, step: str) -> None:
    for one, two in itertools.product(DEATHS, DEATHS):
        await lives_through(redis_url, {step: one, "unhold_open": two}, waits=True, messages=5, most_held=2)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("start", "reclaim"),
        ("emit", "reclaim"),
        ("emit_card", "reclaim"),
        ("commit", "reclaim_reply"),
        ("commit", "resend"),
    ],
)
async def test_so_may_what_others_do_for_the_dead(redis_url: str, first: str, then: str) -> None:
    how = "dies after" if then == "resend" else "dies before"
    for end in DEATHS[1:]:
        await lives_through(redis_url, {first: how, then: end})
