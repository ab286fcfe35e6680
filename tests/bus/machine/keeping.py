"""What threads leave behind, by two buses side by side: the one in memory and the one in Redis are asked the same, and have to answer the same.

Waits that are stored, bound, dropped and forgotten, with the cards that ask, of several people; timers that are set, replaced, dropped and fire; state, history, and the
store with the versions that were read; results that are noted with a change; messages from outside under keys; messages that
are counted against budgets, and what a person's /stop does. Jobs fail, come back, lose their worker and are dead letters meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bus.records.budgets import ADMITTED, DAY_MS, Charge, Limit, LimitKind, of_sender
from bus.records.cards import CardKept, encode_card
from bus.records.outside import OUTSIDE, SendKey
from bus.records.records import STOP_ALL, Job, decode_reply_record, unpack_job
from bus.records.timers import Timer
from bus.steps.job_steps import Failed, Finished
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.thread_steps import Bound, Effect, Noted
from tests.bus.builders import AGENT, BUS_KEY, job_of, reply
from tests.bus.scenes import MemoryScene, Scene, Supervisor, Worker, at_once
from tests.bus.steps.test_rules_outside import said
from tests.bus.talk import Talk

CONVERSATIONS = ("one", "two")
PEOPLE = ("ann", "ben")
WAIT, TIMER, KEY, CARD, SEND_KEY = "w", "t", "k", "c", b"a"
ALL = "all"
HOUR_MS = 3_600_000
MOST_HOURS = 20
"""That pass besides whole days: the two sides have midnight at other times of their own."""

Answer = TypeVar("Answer")

limits = st.tuples(st.sampled_from(get_args(LimitKind)), st.integers(1, 3))
conversations = st.sampled_from(CONVERSATIONS)
values = st.integers(0, 3)
effects = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.just(WAIT), values),
        st.tuples(st.just("drop_wait"), st.just(WAIT), values),
        st.tuples(st.just("state"), st.just(""), values),
        st.tuples(st.just("exchange"), st.just(""), values),
        st.tuples(
            st.sampled_from(["store", "store as it was first", "store whatever is there"]),
            st.just(KEY),
            values,
        ),
        st.tuples(st.just("timer"), st.just(TIMER), values),
        st.tuples(st.just("drop_timer"), st.just(TIMER), values),
        st.tuples(st.just("card"), st.just(CARD), values),
        st.tuples(st.just("forget"), st.just(""), values),
    ),
    max_size=3,
)


@dataclass
class Side:
    """One of the two buses."""

    scene: Scene
    supervisor: Supervisor = field(init=False)
    worker: Worker = field(init=False)
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supervisor = at_once(self.scene.supervisor("supervisor"))
        at_once(self.supervisor.check())
        self.worker = at_once(self.scene.worker("worker", Policies(stop=True)))
        self.talk = Talk(self.supervisor)

    def now_ms(self) -> int:
        return at_once(self.supervisor.timers.now_ms())

    def seen(self) -> list[object]:
        """What lies there, as far as it is the same on both sides."""
        facts, steps = at_once(self.scene.facts()), self.worker.steps
        found: list[object] = [sorted(facts.counted), facts.waiting, facts.busy]  # a timer's job has a time in its id
        assert facts.counted == facts.waits
        for name in CONVERSATIONS:
            look = unpack_job(job_of(10_000, name), entry_id="", attempt=1, deliveries=1, key=BUS_KEY, agent_id=AGENT)
            waits = sorted(
                (one.id, one.body, one.from_seq, _name(one.bound_to)) for one in at_once(steps.open_waits(look))
            )
            said_here = steps.open_exchanges(look, at_once(steps.read_exchanges(look)), bytes)
            count = at_once(self.supervisor.timers.count(name))
            found.append(
                (
                    waits,
                    at_once(steps.read_state(look)),
                    said_here,
                    count,
                    at_once(steps.card(look, CARD)),
                    at_once(steps.stopped(look)),
                )
            )
        used = [at_once(self.scene.used_today(subject)) for subject in (*map(of_sender, PEOPLE), ALL)]
        return [*found, used, at_once(steps.read_stored(KEY))[1], at_once(self.supervisor.outside.count())]


class SideBySide(RuleBasedStateMachine):
    """Both, and what happens to both."""

    def __init__(self, open_scene: Callable[[], Scene]) -> None:
        super().__init__()
        self.sides = (Side(MemoryScene()), Side(open_scene()))
        self.seqs = dict.fromkeys(CONVERSATIONS, 0)
        self.names = 0
        self.first_read: dict[str, bytes] = {}
        self.hours = 0

    def _both(self, ask: Callable[[Side], Answer]) -> Answer:
        one, other = (ask(side) for side in self.sides)
        assert one == other, _differing(one, other)
        return one

    def _forget_job(self) -> None:
        for side in self.sides:
            side.jobs.pop(0)

    @property
    def _has_job(self) -> bool:
        return bool(self.sides[0].jobs)

    @rule(name=conversations, who=st.sampled_from(PEOPLE))
    def somebody_says(self, name: str, who: str) -> None:
        self.seqs[name] += 1
        self._both(lambda side: at_once(side.talk.accept(self.seqs[name], conversation=name, sender=who)))

    @rule(name=conversations, who=st.sampled_from(PEOPLE))
    def somebody_says_stop(self, name: str, who: str) -> None:
        self.seqs[name] += 1
        self._both(
            lambda side: at_once(side.talk.accept(self.seqs[name], conversation=name, sender=who, stops=STOP_ALL))
        )

    @rule(most=st.lists(limits, min_size=1, max_size=2), tells=st.booleans())
    def it_is_counted(self, most: list[tuple[LimitKind, int]], *, tells: bool) -> None:
        """Against so many messages a minute or a day, or tokens a day, of its sender and of all."""
        if not self._with_a_job():
            return
        job, steps = self.sides[0].jobs[0], self.sides[0].worker.steps
        limits = [Limit(subject, *one) for subject, one in zip(_subjects(job), most, strict=False)]
        entry = steps.seal_entry(job, ADMITTED, b"")
        self._both(lambda side: at_once(side.worker.steps.admit(side.jobs[0], limits, entry, tells=tells)))

    def _with_a_job(self) -> bool:
        """The worker has one: somebody says something, if that is needed."""
        if not self._has_job:
            self._take()
        if not self._has_job:
            self.somebody_says(CONVERSATIONS[0], PEOPLE[0])
            self._take()
        return self._has_job

    def _take(self) -> None:
        def take(side: Side) -> tuple[str, bool] | None:
            job = at_once(side.worker.take())
            side.jobs += [] if job is None else [job]
            return None if job is None else (_name(job.job_id), job.is_first_run)

        if self._both(take) is not None:
            self._both(lambda side: _started(at_once(side.worker.steps.start(side.jobs[0]))))

    @rule(wanted=effects, last=st.booleans())
    def it_ends_with_effects(self, wanted: list[tuple[str, str, int]], last: bool) -> None:
        if not self._with_a_job():
            return
        self.names += 1
        made = [self._effect(*one) for one in wanted]

        def end(side: Side) -> Finished:
            chosen = [one(side) for one in made]
            replies = [("last", reply(str(self.names)))] if last else []
            return at_once(side.worker.steps.settle(side.jobs[0], "done", chosen, last=replies))

        if self._both(end) in (Finished.DONE, Finished.FENCED):
            self._forget_job()

    def _effect(self, op: str, name: str, value: int) -> Callable[[Side], Effect]:
        """Records are the same on both sides; but for times, which are each side's own."""
        job, steps, body = self.sides[0].jobs[0], self.sides[0].worker.steps, b"%d" % value
        if op == "wait":
            made: Effect = ("wait", name, steps.seal_wait(job, name, body), "")
        elif op == "state":
            made = steps.state_effect(job, body)
        elif op == "card":
            made = ("card", name, encode_card(CardKept(value, job.thread_id, "0", "approval")), "")
        elif op == "forget":
            made = steps.forget_effect(job)
        elif op.startswith("store"):
            read, _ = at_once(steps.read_stored(name))
            version = self.first_read.setdefault(name, read) if "first" in op else read
            made = steps.store_effect(name, None if "whatever" in op else version, body if value else None)
        elif op == "timer":
            return lambda side: _timer(side, job.conversation_id, name, value)
        elif op == "exchange":
            return lambda side: steps.exchange_effect(job, side.now_ms(), body)
        else:
            made = (op, name, "", "")
        return lambda _side: made

    @rule()
    def it_answers(self) -> None:
        if not self._with_a_job():
            return
        bound = self._both(lambda side: at_once(side.worker.steps.bind_wait(side.jobs[0], WAIT)))
        assert isinstance(bound, Bound)

    @rule(name=st.sampled_from(["a", "b"]), key=st.sampled_from([None, KEY]), value=values, tokens=values)
    def it_notes(self, name: str, key: str | None, value: int, tokens: int = 0) -> None:
        """With a change of the store, or without one; with tokens that are paid, or without."""
        if not self._with_a_job():
            return
        job, steps = self.sides[0].jobs[0], self.sides[0].worker.steps
        change = None if key is None else self._effect("store", key, value)
        entry = steps.seal_entry(job, name, b"%d" % value)
        charge = Charge(_subjects(job), tokens) if tokens else None

        def note(side: Side) -> Noted:
            made = None if change is None else change(side)
            return at_once(side.worker.steps.note(side.jobs[0], name, entry, only_new=True, change=made, charge=charge))

        self._both(note)

    @rule(how=st.sampled_from(["again", "dead", "hand_back", "dies", "plain"]))
    def it_ends_otherwise(self, how: str) -> None:
        if not self._with_a_job():
            return

        def end(side: Side) -> object:
            steps, job = side.worker.steps, side.jobs[0]
            match how:
                case "again" | "dead":
                    failed = at_once(steps.fail(job, "broke", 0 if how == "again" else None))
                    return (failed, at_once(side.talk.start_due()) if failed is Failed.RETRY else 0)
                case "hand_back":
                    return at_once(steps.hand_back(job, has_begun=True))
                case "dies":
                    return [one.outcome for one in at_once(side.talk.reclaim(Reclaim()))]
                case _:
                    return at_once(steps.finish(job))

        self._both(end)
        self._forget_job()

    @rule()
    def dead_letters_come_back(self) -> None:
        def retry(side: Side) -> list[object]:
            return [at_once(side.supervisor.dead.retry(one)) for one in at_once(side.supervisor.dead.first())]

        self._both(retry)

    @rule()
    def a_dead_letter_is_dropped(self) -> None:
        """The first, with the question that its job was to answer; and once more, when it is gone."""

        def drop(side: Side) -> list[bool]:
            letters = at_once(side.supervisor.dead.first(1))
            return [at_once(side.supervisor.dead.drop(one)) for one in letters * 2]

        self._both(drop)

    @rule()
    def a_day_passes(self) -> None:
        """What was used of a day's budgets is as new."""
        for side in self.sides:
            at_once(side.scene.time_passes(DAY_MS))

    @rule(hours=st.integers(0, 2))
    def time_passes_and_timers_fire(self, hours: int) -> None:
        hours = hours if self.hours + hours <= MOST_HOURS else 0
        self.hours += hours

        def fire(side: Side) -> list[object]:
            at_once(side.scene.time_passes(hours * HOUR_MS + 1))
            timers, now_ms, fired = side.supervisor.timers, side.now_ms(), list[object]()
            for alarm in sorted(at_once(timers.due(now_ms)), key=lambda one: (one.conversation_id, one.timer_id)):
                packed = at_once(timers.read(alarm))
                assert packed is not None
                done = at_once(timers.fire(packed, timers.opened(packed, alarm), now_ms))
                fired.append((alarm.conversation_id, alarm.timer_id, done))
            return fired

        self._both(fire)

    @rule(name=conversations, key=st.sampled_from([None, SEND_KEY]), content=st.sampled_from([b"x", b"y"]))
    def somebody_sends_from_outside(self, name: str, key: bytes | None, content: bytes) -> None:
        self.names += 1
        word, once = f"{self.names}", None if key is None else SendKey(key, content)
        self._both(
            lambda side: at_once(
                side.supervisor.outside.send(
                    name, said(word, name), f"{OUTSIDE}{word}", key=once, budgets=side.supervisor.store.budgets
                )
            )
        )

    @rule()
    def a_reply_is_sent(self) -> None:
        def send(side: Side) -> object:
            entry = at_once(side.supervisor.take_reply())
            if entry is None:
                return at_once(side.supervisor.outside.let_out())
            record = decode_reply_record(entry.fields["r"])
            cmid = f"{_name(record.job_id)}/{record.place}"
            committed = at_once(side.talk.commit(entry, cmid)).outcome
            at_once(side.supervisor.outbox.confirm(record.conversation_id, cmid, "m", 1))
            return (cmid, committed)

        self._both(send)

    @rule(asks=effects, answers=effects, value=values, hours=st.integers(0, 2), content=st.sampled_from([b"x", b"y"]))
    def a_thread_goes_its_way(
        self,
        *,
        asks: list[tuple[str, str, int]],
        answers: list[tuple[str, str, int]],
        value: int,
        hours: int,
        content: bytes,
    ) -> None:
        """So that much of it is under way."""
        self.somebody_says(CONVERSATIONS[0], PEOPLE[0])
        self.it_ends_with_effects([("wait", WAIT, value), ("timer", TIMER, hours), *asks], last=True)
        self.somebody_says(CONVERSATIONS[0], PEOPLE[0])
        self.it_answers()
        self.it_notes("a", KEY, value)
        self.the_same_lies_there()
        self.it_ends_with_effects(answers, last=False)
        self.time_passes_and_timers_fire(hours)
        self.somebody_sends_from_outside(CONVERSATIONS[0], SEND_KEY, content)

    @invariant()
    def the_same_lies_there(self) -> None:
        self._both(Side.seen)

    def teardown(self) -> None:
        for side in self.sides:
            side.scene.close()


def _subjects(job: Job) -> tuple[str, str]:
    return of_sender(job.message.sender_id), ALL


def _timer(side: Side, conversation: str, name: str, hours: int) -> Effect:
    due_ms = side.now_ms() + hours * HOUR_MS
    timer = Timer(id=name, conversation_id=conversation, due_ms=due_ms, kind="reminder", name=name)
    return ("timer", name, due_ms, side.worker.steps.seal_timer(timer))


def _name(job_id: str) -> str:
    """Without the time that is in a timer's."""
    return job_id.rpartition(":")[0] if job_id.startswith("timer:") else job_id


def _started(started: object) -> object:
    return (started.outcome, sorted(started.places), sorted(started.journal), len(started.together))  # type: ignore[attr-defined]


def _differing(one: object, other: object) -> list[tuple[object, object]]:
    """In memory and in Redis."""
    if not (isinstance(one, list) and isinstance(other, list)):
        return [(one, other)]
    return [(mine, theirs) for mine, theirs in zip(one, other, strict=True) if mine != theirs]
