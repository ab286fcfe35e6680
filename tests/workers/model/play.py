"""One play by its seed: who acts next, who dies, who says what, what time it is. The same seed plays the same."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bus.records.records import (
    InboundMessage,
    Job,
    Payload,
    decode_reply_record,
    is_answer_to_card,
    open_reply,
    pack_job,
    unpack_job,
)
from bus.steps.policies import Busy
from bus.steps.recovery import Reclaim
from bus.steps.store import Arrival, Intake, Source
from tests.bus.builders import AGENT, BUS_KEY, arrival_of, job_of
from tests.bus.scenes import MemoryScene, Scene, Supervisor
from tests.bus.talk import Talk
from tests.workers.model.agents import VERSIONS, Deeds, Kept, agent_of
from tests.workers.model.ledger import COMMANDS, Asked, Heard, Ledger, Said
from tests.workers.model.lives import Act, Life
from workers.kept.history import decode_exchange
from workers.kept.waits import Wait, card_named_in
from workers.talk import asks

CONVERSATIONS = ("one", "two")
PEOPLE = ("ann", "ben")
STEPS = 90
BUSY: tuple[Busy, ...] = ("queue", "queue", "interrupt", "coalesce")
MOST_THREADS = 5
MOST_ROUNDS = 25
MOST_LATE, LATE_STOPS = 3, 0.03
"""Deaths, and stops, while all is brought to its end."""
MOST_ACTS = 3000
MOST_OPEN = 3
"""Questions of a conversation; fewer than in earnest, so that a play comes to it."""
HOUR_MS = 3_600_000


class Fault(AssertionError):
    """Something happened that may not happen."""


@dataclass(frozen=True)
class Features:
    """What goes on in a play: each has its own, so that some of it comes often."""

    busy: Busy
    most_waiting: int
    versions: tuple[str, ...]
    commands: tuple[str, ...]
    conversations: tuple[str, ...]
    deaths: float
    failures: float
    slow: float
    time: float
    talk: float

    @classmethod
    def of(cls, dice: random.Random) -> "Features":
        return cls(
            busy=dice.choice(BUSY),
            most_waiting=dice.choice((100, 100, 2)),
            versions=dice.choice((VERSIONS[:1], VERSIONS[:1], VERSIONS[:2], VERSIONS)),
            commands=tuple(dice.sample(COMMANDS, dice.choice((1, 1, 2)))) if dice.random() < 0.6 else ("book",),
            conversations=CONVERSATIONS[: dice.choice((1, 1, 2))],
            deaths=dice.choice((0, 0.1, 0.4)),
            failures=dice.choice((0, 0, 0.5)),
            slow=dice.choice((0, 0, 0.3)),
            time=dice.choice((0, 0.2, 1)),
            talk=dice.choice((0.5, 1, 2)),
        )


class Play:
    """`scene`: the bus that it is played on."""

    def __init__(self, seed: int, scene: Scene, steps: int = STEPS) -> None:
        self.dice = random.Random(seed)
        self.steps = steps
        self.features = Features.of(self.dice)
        self.deeds = Deeds(self._failures)
        self.ledger = Ledger(self.deeds, self.features.busy, len(self.features.versions) > 1)
        self.agents = {
            one: agent_of(one, self.deeds, self.features.busy, self.features.most_waiting)
            for one in self.features.versions
        }
        self.scene = scene
        self.lives: list[Life] = []
        self.gone: list[str] = []
        self.names = 0
        self.seqs = dict.fromkeys(CONVERSATIONS, 0)
        self.words = 0
        self.let_in: set[str] = set()
        self.looked_at = self.late_deaths = self.late_stops = self.late_acts = 0
        self.supervisor: Supervisor = cast("Supervisor", None)

    async def run(self) -> None:
        self.supervisor = await self.scene.supervisor("supervisor")
        await self.supervisor.check()
        self.talk = Talk(self.supervisor)
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                await self._plays()
            finally:
                for life in self.lives:
                    life.die()
                cast("MockClock", trio.lowlevel.current_clock()).autojump_threshold = 0  # what is shielded ends too
            nursery.cancel_scope.cancel()
        await self._check_end()

    async def _plays(self) -> None:
        for _ in range(2):
            await self._begins_life(self.dice.choice(self.features.versions))
        for _ in range(self.steps):
            await wait_all_tasks_blocked()
            await self._step()
            self._check_so_far()
        await self._settle()

    def _check_so_far(self) -> None:
        if self.ledger.now != self.looked_at:
            self.looked_at = self.ledger.now
            self.ledger.check_open(MOST_OPEN)
        if faults := [*self.ledger.faults, *self.deeds.faults]:
            raise Fault(faults[0])

    async def _check_end(self) -> None:
        done, steps, kept = dict[str, Any](), (await self.scene.worker("looks")).steps, list[str]()
        for name in self.features.conversations:
            job = unpack_job(job_of(10_000, name), entry_id="", attempt=1, deliveries=1, key=BUS_KEY, agent_id=AGENT)
            record = await steps.read_state(job)
            done[name] = [] if record is None else msgspec.msgpack.decode(record, type=Kept).done
            bodies = steps.open_exchanges(job, await steps.read_exchanges(job), bytes)
            kept += [turn.text for body in bodies for turn in decode_exchange(body) if turn.role == "assistant"]
        _, ended = await steps.read_stored("ended")
        self.ledger.check(done, msgspec.msgpack.decode(ended) if ended else 0, kept)
        self._check_so_far()
        if left := await self.scene.leftovers():
            raise Fault(f"left over: {left}")

    def _failures(self) -> int:
        """Once or twice, or as often as makes a dead letter."""
        return self.dice.choice((1, 2, 4, 4)) if self.dice.random() < self.features.failures else 0

    # Who acts

    async def _begins_life(self, version: str) -> None:
        self.names += 1
        agent = self.agents[version]
        worker = await self.scene.worker(f"worker-{self.names}", agent.policies)
        life = Life(worker, agent, version, self.ledger)
        self.lives.append(life)
        self.ledger.happens(f"{life.name} begins: {version}")
        self.nursery.start_soon(life.run)

    async def _step(self) -> None:
        await self._renews_lives(self.features.versions)
        options: list[tuple[float, Callable[[], Any]]] = []

        def may(weight: float, what: Callable[..., Any], *arguments: object) -> None:
            if weight > 0:
                options.append((weight, lambda: what(*arguments)))

        features = self.features
        for life in self.lives:
            for act in life.parked:
                may(0 if act.is_fruitless else 4, self._goes_on, act)
                if act.name != "take":
                    may(features.slow, self._is_slow, act)
                    may(features.deaths, self._dies, life)
                    may(features.deaths, self._dies_after, act)
            may(0.05, life.runner.drain)
            may(0.05, life.runner.stop)
            may(0.3 if life.held else 0, life.look)
            may(0.5 if life.news else 0, life.hears)
            may(features.deaths / 4 if life.held else 0, self._is_taken_for_dead, life)
        may(features.talk, self._somebody_says)
        may(2, self._replies_are_sent)
        may(1, self._time_passes, 0.006)
        may(features.time, self._time_passes, 1.6)
        may(features.time / 8, self._an_hour_passes)
        may(0.5, self._timers_fire)
        may(0.5, self._the_due_start)
        may(0.2, self._the_dead_are_revived)
        may(1 if self.gone else 0, self._the_gone_are_seen)
        weights = [weight for weight, _ in options]
        [(_, what)] = self.dice.choices(options, weights)
        done = what()
        if done is not None:
            await done

    async def _renews_lives(self, versions: tuple[str, ...]) -> None:
        for life in [one for one in self.lives if one.has_ended]:
            self.lives.remove(life)
            self.gone.append(life.name)
            await self._begins_life(self.dice.choice(versions))

    def _wakes(self) -> None:
        for life in self.lives:
            for act in life.parked:
                act.is_fruitless = False

    def _goes_on(self, act: Act) -> None:
        if act.name != "take":
            self._wakes()
        act.go.set()

    def _is_slow(self, act: Act) -> None:
        act.how = "is slow"
        self._goes_on(act)

    def _dies(self, life: Life) -> None:
        self.ledger.happens(f"{life.name} dies before {', '.join(act.name for act in life.parked)}")
        self.ledger.deaths += 1
        life.die()

    def _dies_after(self, act: Act) -> None:
        self.ledger.deaths += 1
        self.ledger.happens(f"dies after {act.name}")
        act.how = "dies after"
        self._goes_on(act)

    async def _is_taken_for_dead(self, life: Life) -> None:
        """Its leases have run out, and it does not know."""
        self.ledger.happens(f"{life.name} is taken for dead")
        self.ledger.deaths += 1
        await self._reclaim(life.name)

    async def _the_gone_are_seen(self) -> None:
        for name in self.gone:
            await self._reclaim(name)
        self.gone.clear()

    async def _reclaim(self, consumer: str) -> None:
        recovery = self.supervisor.recovery
        for pending in await recovery.pending(recovery.jobs, consumer=consumer):
            reclaimed = await recovery.reclaim(recovery.jobs, pending, Reclaim())
            self.ledger.happens(f"{reclaimed.outcome} {reclaimed.job_id}, which {consumer} had")
        self._wakes()

    # Time

    async def _time_passes(self, seconds: float) -> None:
        cast("MockClock", trio.lowlevel.current_clock()).jump(seconds)
        await self.scene.time_passes(round(seconds * 1000))

    async def _an_hour_passes(self) -> None:
        self.ledger.happens("an hour passes")
        await self.scene.time_passes(HOUR_MS)

    async def _timers_fire(self) -> None:
        timers = self.supervisor.timers
        now_ms = await timers.now_ms()
        for alarm in await timers.due(now_ms):
            packed = await timers.read(alarm)
            if packed is None:
                continue
            timer = timers.opened(packed, alarm)
            fired = await timers.fire(packed, timer, now_ms)
            at = self.ledger.happens(f"{timer.kind} {timer.id}: {fired.name.lower()}")
            if timer.kind == "deadline":
                self._note_deadline(timer.id, at)
        self._wakes()

    def _note_deadline(self, wait_id: str, at: int) -> None:
        for asked in self.ledger.questions():
            if wait_id == BUS_KEY.card_id(MESSAGE_MS, asked.thread.id, asked.shown.place):
                self.ledger.fired[asked.thread.id] = at

    async def _the_due_start(self) -> None:
        if await self.talk.start_due():
            self._wakes()

    async def _the_dead_are_revived(self) -> bool:
        letters = await self.supervisor.dead.first()
        for letter in letters:
            self.ledger.happens(f"revived: {letter.reason} {getattr(letter.decoded(), 'job_id', '')}")
            await self.supervisor.dead.retry(letter)
        if letters:
            self._wakes()
        return bool(letters)

    # People

    async def _replies_are_sent(self) -> bool:
        is_any = False
        while (entry := await self.supervisor.take_reply()) is not None:
            is_any = True
            record = decode_reply_record(entry.fields["r"])
            said = f"{record.job_id} {record.place}"
            await self.talk.commit(entry, said)
            seq = self._next_seq(record.conversation_id)
            await self.supervisor.outbox.confirm(record.conversation_id, said, f"sent {seq}", seq)
            reply = open_reply(record, key=BUS_KEY, agent_id=AGENT)
            self.ledger.hears(record.conversation_id, record.job_id, record.place, reply)
        return is_any

    def _next_seq(self, conversation: str) -> int:
        self.seqs[conversation] += 1
        return self.seqs[conversation]

    async def _somebody_says(self) -> None:
        dice, conversation = self.dice, self.dice.choice(self.features.conversations)
        who = dice.choice(PEOPLE) if dice.random() < 0.3 else PEOPLE[0]
        asked = [one for one in self.ledger.questions() if one.thread.conversation == conversation]
        open_ones = [one for one in asked if not self.ledger.next_line(one)]
        cards = [one for one in asked if one.is_card]
        bars = [one for one in self.ledger.heard if one.is_bar and one.conversation == conversation]
        threads = [one for one in self.ledger.threads if one.conversation == conversation]
        what = dice.random()
        if open_ones and what < 0.4:
            one = dice.choice(open_ones)
            await self._answers(one, one.who)
        elif cards and what < 0.6:
            card = dice.choice(cards[-2:])
            await self._presses(card.shown, who, is_yes=dice.random() < 0.7, is_right=dice.random() < 0.7)
        elif bars and what < 0.6:
            await self._stops(dice.choice(bars[-2:]))
        elif what < 0.65:
            await self._says(conversation, who, "/cancel")
        elif what < 0.85 and len(threads) < MOST_THREADS:
            extra = " ben" if dice.random() < 0.2 else ""
            await self._says(conversation, who, f"/{dice.choice(self.features.commands)}{extra} {self._word('t')}")
        else:
            await self._says(conversation, who, self._word("w"))

    async def _answers(self, asked: Asked, who: str, *, is_yes: bool = True) -> None:
        if asked.is_card:
            await self._presses(asked.shown, who, is_yes=is_yes, is_right=True)
        else:
            await self._says(asked.thread.conversation, who, self._word("w"))

    def _word(self, letter: str) -> str:
        self.words += 1
        return f"{letter}{self.words}"

    async def _says(self, conversation: str, who: str, text: str) -> None:
        await self._accept(Said("", conversation, who, 0, text), {"type": "text", "text": text})

    async def _presses(self, shown: Heard, who: str, *, is_yes: bool, is_right: bool) -> None:
        question_hash = shown.inner["question_hash"] if is_right else "0" * 64
        payload = {"decision": "approved" if is_yes else "rejected", "question_hash": question_hash}
        artifact = {"subtype": "response", "ref_artifact": shown.card_id, "payload": payload}
        said = Said("", shown.conversation, who, 0, "", shown.card_id, is_yes, is_right)
        await self._accept(said, {"type": "artifact", "artifact": artifact})

    async def _stops(self, shown: Heard) -> None:
        """Presses the button of a progress, which reaches whoever runs it, or is an answer to nothing any more."""
        thread = self.ledger.said[shown.job_id]
        artifact = {"subtype": "response", "ref_artifact": shown.card_id, "payload": {"action": "cancel"}}
        said = Said("", shown.conversation, thread.who, 0, "", shown.card_id)
        await self._accept(said, {"type": "artifact", "artifact": artifact}, stops=shown.card_id)

    async def _accept(self, said: Said, payload: dict[str, object], *, stops: str = "") -> None:
        seq = self._next_seq(said.conversation)
        message_id = f"{said.conversation}-{seq}"
        message = InboundMessage(
            message_id=message_id,
            conversation_id=said.conversation,
            conversation_type="h2a",
            sender_id=said.who,
            sender_type="human",
            payload=payload,
        )
        arrival = arrival_of(seq, await self.talk.version(), source=Source.POLL, conversation=said.conversation)
        arrival = msgspec.structs.replace(arrival, sender_id=said.who, message_ms=MESSAGE_MS)
        packed = pack_job(message, seq=seq, accepted_ms=MESSAGE_MS, message_ms=MESSAGE_MS, key=BUS_KEY, agent_id=AGENT)
        looks = unpack_job(packed, entry_id="", attempt=1, deliveries=1, key=BUS_KEY, agent_id=AGENT)
        if not await self._is_taken_in(arrival, packed, looks, stops):
            self.ledger.happens(f"{said.who} in {message_id}: {said}, for which there is no room")
            return
        at = self.ledger.happens(f"{said.who} in {message_id}: {said}")
        if stops and await self.lives[0].worker.steps.stopped(looks) == stops:
            self.ledger.trace[-1] += ", which reaches it"
            self.deeds.blocks.setdefault(self.ledger.tag_of_card(stops), 0)
            return
        self.ledger.said[message_id] = replace(said, id=message_id, at=at)
        self._wakes()

    async def _is_taken_in(self, arrival: Arrival, packed: bytes, looks: Job, stops: str) -> bool:
        """As a supervisor does: what may answer an open question finds room once for each in a mailbox that is full, all else is refused."""
        store = self.supervisor.store
        if (outcome := await store.accept(arrival, packed, stops=stops)) is not Intake.FULL:
            assert outcome.is_new
            return True
        question = await self._question_answered(looks)
        if not question:
            return False
        is_let_in = (await store.accept(arrival, packed, stops=stops, question=question)).is_new
        if is_let_in == (question in self.let_in):
            raise Fault(f"an answer to {question} is {'' if is_let_in else 'not '}let in for want of room")
        self.let_in.add(question)
        return is_let_in

    async def _question_answered(self, looks: Job) -> str:
        """The latest open question that a message may answer, '' for none."""
        message = looks.message
        waits = [
            msgspec.msgpack.decode(one.body, type=Wait) for one in await self.lives[0].worker.steps.open_waits(looks)
        ]
        if is_answer_to_card(message.payload):
            named = card_named_in(cast("Payload", message.payload["artifact"]))
            theirs = [wait.id for wait in waits if wait.id == named]
        elif message.text == "/cancel" or not message.text.startswith("/"):
            is_words = message.text != "/cancel"
            mine = [wait for wait in waits if message.sender_id in wait.who]
            theirs = [wait.id for wait in mine if wait.kind == "text" or not is_words]
        else:
            theirs = []
        return max(theirs, default="")

    # To the end

    async def _settle(self) -> None:
        """Everybody does what there is to do, each version in turn, until there is nothing."""
        self.ledger.happens("from here on all is brought to its end")
        versions = [one for one in self.features.versions if one != "without"]
        lets_time_pass = self.dice.choice((0, 0, 0.5, 1))
        for number in range(MOST_ROUNDS):
            version = versions[number % len(versions)]
            for life in self.lives:
                life.runner.drain()
            await self._until_nothing_goes_on(version)
            lets_lie = number < 6 and self.dice.random() < 0.4
            was_revived = not lets_lie and await self._the_dead_are_revived()
            asked = self.ledger.open_questions()
            if (
                not lets_lie
                and not was_revived
                and not asked
                and number >= len(versions)
                and not await self._has_timers()
            ):
                break
            if asked and self.dice.random() >= lets_time_pass:
                for one in asked:
                    await self._answers(one, one.who)
            else:
                await self._an_hour_passes()
                await self._timers_fire()
        else:
            raise Fault(f"something never ends: {[one.shown.text for one in self.ledger.open_questions()]}")
        for life in self.lives:
            life.runner.drain()
        await self._until_nothing_goes_on(versions[0])

    async def _has_timers(self) -> bool:
        return bool(await self.supervisor.timers.due(1 << 60))

    async def _until_nothing_goes_on(self, version: str) -> None:
        quiet = 0
        while quiet < 30:
            self.late_acts += 1
            if self.late_acts > MOST_ACTS:
                raise Fault("it never comes to rest")
            await wait_all_tasks_blocked()
            await self._renews_lives((version,))
            await self._the_gone_are_seen()
            acts = [act for life in self.lives for act in life.parked if not act.is_fruitless]
            if acts:
                act, quiet = self.dice.choice(acts), 0
                if (
                    act.name != "take"
                    and self.late_deaths < MOST_LATE
                    and self.dice.random() < self.features.deaths / 4
                ):
                    self.late_deaths += 1
                    self._dies_after(act)
                elif self.late_stops < MOST_LATE and self.dice.random() < LATE_STOPS:
                    self.late_stops += 1
                    self.dice.choice(self.lives).runner.stop()
                else:
                    self._goes_on(act)
            elif await self._replies_are_sent() or await self.talk.start_due():
                self._wakes()
                quiet = 0
            else:
                is_busy = any(life.held for life in self.lives)
                await self._time_passes(0.006 if quiet < 3 else 1.6)
                quiet += 1 if is_busy else 10
            self._check_so_far()


MESSAGE_MS = 1_700_000_000_000


def play(seed: int, open_scene: Callable[[], Scene] = MemoryScene, steps: int = STEPS) -> Play:
    """Plays it to its end. Raises Fault; whatever is raised has the trace as a note."""
    state = random.getstate()
    run = cast("Any", trio)._core._run
    was = run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    random.seed(seed)
    made = Play(seed, open_scene(), steps)
    bound = vars(asks)["MOST_OPEN_WAITS"]
    vars(asks)["MOST_OPEN_WAITS"] = MOST_OPEN
    try:
        trio.run(made.run, clock=MockClock())
    except BaseException as error:  # noqa: BLE001 - raised with its trace
        raised = _only(error)
        raised.add_note(f"seed {seed}, {made.features}\n" + "\n".join(made.ledger.trace))
        raise raised from None
    finally:
        made.scene.close()
        vars(asks)["MOST_OPEN_WAITS"] = bound
        run._ALLOW_DETERMINISTIC_SCHEDULING = was
        random.setstate(state)
    return made


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    return error
