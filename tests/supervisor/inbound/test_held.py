"""A sender with too much waiting here waits at the relay: others go on, and what has waited is fetched in its order, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from bus.steps.held import Note, Notes
from bus.steps.policies import Policies
from bus.steps.store import Intake
from bus.steps.work_lease import WorkLease
from bus.views.trace import Ledger
from host.budgets import StoreBudgets
from supervisor.inbound.held import HeldFetcher, WantedSender
from supervisor.peers.untold import IN_VAIN_SECONDS
from supervisor.relay.frames import MessageNew
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import ASKING_BRIEFLY, Core, open_core, until, worker
from tests.supervisor.inbound.test_inbound import OTHER_CONVERSATION, scene
from tests.supervisor.peers.group_scene import scene as group_scene
from tests.supervisor.person import CONVERSATION, PERSON, Person, message_frame
from tests.waiting import waiting_for

BEN = "01906abc-0000-7000-8000-0000000000b1"
TEXTS = ["one", "two", "three", "four", "five"]


def let_nothing_wait(core: Core) -> None:
    """Behind a running message there is room for none."""
    core.store.budgets = msgspec.structs.replace(core.store.budgets, waiting_bytes=0)


def held(core: Core, notes: Notes | None = None) -> HeldFetcher:
    """What fetches of this supervisor."""
    lease = WorkLease(core.client, core.keys.work_lease("fetch"), holder=core.instance.name)
    return HeldFetcher(
        core.store,
        lease,
        notes=notes or notes_of(core),
        inbound=core.inbound,
        rest=core.rest,
        metrics=core.metrics,
        is_untold=core.owners.untold.holds_up,
        pauses=Pauses(held_look=0.01),
    )


def notes_of(core: Core) -> Notes:
    return Notes(core.client, core.keys)


@asynccontextmanager
async def fetching(core: Core) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held(core).run)
        yield
        nursery.cancel_scope.cancel()


async def say(core: Core, person: Person, *texts: str) -> list[MessageNew]:
    said = [person.say(text) for text in texts]
    core.rest.history += said
    for frame in said:
        await core.push(frame)
    return said


async def handle(core: Core, count: int, policies: Policies | None = None) -> list[str]:
    """As many jobs as come, one after the other, to a worker that publishes these policies; their texts."""
    texts = list[str]()
    async with worker(core, "slow", policies=policies) as jobs:
        with waiting_for(f"{count} jobs", 10):
            while len(texts) < count:
                for job in await jobs.take(1):
                    texts.append(job.message.text)
                    await jobs.finish(job)
                    jobs.release(job)
    return texts


async def test_what_waits_at_the_relay_is_fetched_in_order_and_others_do_not_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        ben = Person(core.rest, BEN)
        ben.meet()
        core.rest.page_length = 2
        said = await say(core, ada, *TEXTS)
        assert await notes_of(core).count() == 4
        other = ben.say("hello", conversation=OTHER_CONVERSATION)
        core.rest.history.insert(2, other)
        await core.push(other)
        assert await core.catchup.poll_to_the_present(), "what is noted is settled: the cursor moves"
        assert await core.store.cursor() == said[-1].message_id
        assert core.count("message_held_total") >= 4
        async with fetching(core):
            assert sorted(await handle(core, 6)) == sorted([*TEXTS, "hello"])
            await until(lambda: nothing_waits(core))
        assert core.count("message_fetched_total") == 4
        assert core.count("message_late_total") == 0
        [first, *_] = await Ledger(core.client, core.keys).trace(said[1].message_id)
        assert first.name == "held"


async def nothing_waits(core: Core) -> bool:
    return await notes_of(core).count() == 0


async def test_order_is_kept_across_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        await say(core, ada, *TEXTS[:3])
        async with open_core(core.url, core.rest) as successor:
            await say(successor, ada, *TEXTS[3:])
            async with fetching(successor):
                assert await handle(successor, 5) == TEXTS


async def test_a_later_message_of_the_same_sender_waits_too_in_every_conversation(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        await say(core, ada, "one", "two")
        elsewhere = ada.say("elsewhere", conversation=OTHER_CONVERSATION, seq=1)
        core.rest.history.append(elsewhere)
        assert await core.polled(elsewhere) is Intake.NOTED
        assert await core.polled(elsewhere) is Intake.NOTED
        assert await notes_of(core).count() == 2
        async with fetching(core):
            assert sorted(await handle(core, 3)) == ["elsewhere", "one", "two"]


async def test_who_is_not_told_by_the_relay_waits_there_in_order_and_nobody_waits_with_them(
    tmp_path: Path, clock: MockClock
) -> None:
    """A relay that is slow for five seconds must not put the first of a person's messages behind the second."""
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        ben = Person(core.rest, BEN)
        ben.meet()
        await core.owners.refresh()
        core.rest.fail_next("devices", *[RestFailed("devices", 503)] * 100)
        said = [ada.say("one"), ada.say("two")]
        core.rest.history += said
        assert [await core.polled(frame) for frame in said] == [Intake.NOTED, Intake.NOTED]
        assert await core.quarantine.count() == 0
        async with fetching(core):
            clock.jump(IN_VAIN_SECONDS[0])
            asked = core.rest.calls.count("devices")
            await until(lambda: is_asked_more_than(core, asked))
            assert await notes_of(core).count() == 2, "asked in vain once more, both wait on"
            core.rest.fail_no_more()
            other = ben.say("hello", conversation=OTHER_CONVERSATION, seq=1)
            core.rest.history.append(other)
            assert await core.polled(other) is Intake.ACCEPTED
            [late] = await say(core, ada, "three")
            assert await core.polled(late) is Intake.NOTED, "behind what waits"
            clock.jump(IN_VAIN_SECONDS[1])
            texts = await handle(core, 4)
        assert [text for text in texts if text != "hello"] == ["one", "two", "three"]


NOT_TOLD = {"their relation": "relations", "a group's key": "group_key", "a member's keys": "devices"}


@pytest.mark.parametrize("call", NOT_TOLD.values(), ids=NOT_TOLD)
async def test_what_the_relay_does_not_tell_of_somebody_is_waited_for_there_in_their_order(
    tmp_path: Path, clock: MockClock, call: str
) -> None:
    """First contacts, and groups: in quarantine a later message could come before them."""
    hearing_all, pauses = Policies(groups="all"), ASKING_BRIEFLY
    async with group_scene(tmp_path, pauses) as (core, circle, ada, _):
        await core.policies.publish(hearing_all)
        core.rest.fail_next(call, *[RestFailed(call, 503)] * 1000)
        if call == "relations":
            ada.meet()
        said = [ada.say(text) if call == "relations" else circle.say(ada, text) for text in ("one", "two")]
        core.rest.history += said
        assert [await core.polled(frame) for frame in said] == [Intake.NOTED, Intake.NOTED]
        assert await core.polled(said[0]) is Intake.NOTED, "once noted, it is noted"
        assert await notes_of(core).count() == 2
        assert await core.quarantine.count() == 0
        async with fetching(core):
            clock.jump(IN_VAIN_SECONDS[0])
            asked = core.rest.calls.count(call)
            await until(lambda: is_asked_again(core, call, asked))
            assert await notes_of(core).count() == 2, "asked in vain once more, both wait on"
            core.rest.fail_no_more()
            clock.jump(IN_VAIN_SECONDS[1])
            assert await handle(core, 2, hearing_all) == ["one", "two"]
            await until(lambda: nothing_waits(core))
        assert await core.quarantine.count() == 0


async def test_where_too_much_waits_who_is_not_told_stands_in_quarantine_and_holds_nobody_up(tmp_path: Path) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        ben = Person(core.rest, BEN)
        ben.meet()
        core.rest.fail_next("relations", *[RestFailed("relations", 503)] * 100)
        few_notes(core, most_held=1)
        first, other = ada.say("one"), ben.say("hello", conversation=OTHER_CONVERSATION, seq=1)
        assert await core.polled(first) is Intake.NOTED
        outcome = await core.polled(other)
        assert outcome is not None
        assert outcome.is_settled, "so the cursor moves"
        assert await notes_of(core).count() == 1
        assert [await core.quarantined(frame) for frame in (first, other)] == [None, "no_grant"]
        core.rest.fail_no_more()
        await core.owners.refresh()
        await core.until_tried_again()
        assert await core.jobs() == ["hello"]


async def test_what_many_have_said_is_read_once_and_not_once_for_each(tmp_path: Path, clock: MockClock) -> None:
    async with scene(tmp_path, Pauses(asking=1.0, asking_again=0.2)) as (core, _):
        people = [Person(core.rest, f"01906abc-0000-7000-8000-0000000001{number:02d}") for number in range(30)]
        core.rest.fail_next("relations", *[RestFailed("relations", 503)] * 1000)
        for number in (1, 2):
            for person in people:
                person.meet()
                frame = person.say(f"{person.user_id} {number}", conversation=person.user_id, seq=number)
                core.rest.history.append(frame)
        async with trio.open_nursery() as nursery:
            for person in people:
                nursery.start_soon(push_all, core, person)
        assert await notes_of(core).count() == 60
        core.rest.fail_no_more()
        core.rest.page_length = 10
        clock.jump(IN_VAIN_SECONDS[0])
        await core.owners.refresh()
        polls = core.rest.calls.count("poll")
        await held(core).fetch_if_there_is_room(await notes_of(core).senders())
        assert await nothing_waits(core)
        assert core.rest.calls.count("poll") - polls <= 7, "six pages, and whether there is more"
        handled = [text.split() for text in await handle(core, 60)]
        for person in people:
            assert [number for who, number in handled if who == person.user_id] == ["1", "2"]


async def push_all(core: Core, person: Person) -> None:
    for frame in core.rest.history:
        if isinstance(frame, MessageNew) and frame.sender_id == person.user_id:
            assert await core.polled(frame) is Intake.NOTED


async def is_asked_again(core: Core, call: str, before: int) -> bool:
    return core.rest.calls.count(call) > before and core.owners.untold.holds_up(PERSON)


async def is_asked_more_than(core: Core, count: int) -> bool:
    return core.rest.calls.count("devices") > count and core.owners.untold.is_paused(PERSON)


async def test_what_the_relay_has_no_more_becomes_a_dead_letter_and_the_rest_comes(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        said = await say(core, ada, *TEXTS[:3])
        core.rest.history.remove(said[1])
        async with fetching(core):
            assert await handle(core, 2) == ["one", "three"]
            await until(lambda: nothing_waits(core))
        [letter] = await core.dead.first()
        assert (letter.reason, letter.job_id) == ("gone_at_relay", said[1].message_id)


async def test_what_is_fetched_while_there_is_no_room_waits_on(tmp_path: Path) -> None:
    """Noted once more it would count as settled, its note would go, and nobody would fetch it again."""
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("first"))
        let_nothing_wait(core)
        [waiting] = await say(core, ada, "two")
        assert await core.inbound.fetched(waiting) is Intake.HELD
        assert await notes_of(core).count() == 1


async def test_a_relay_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        await say(core, ada, "one", "two")
        core.rest.fail_next("poll")
        async with fetching(core):
            assert await handle(core, 2) == ["one", "two"]


async def test_a_member_of_a_group_who_waits_holds_up_no_other_member(tmp_path: Path) -> None:
    hearing_all = Policies(groups="all")
    async with group_scene(tmp_path) as (core, circle, ada, ben):
        await core.policies.publish(hearing_all)
        let_nothing_wait(core)
        core.rest.history += [circle.say(ada, "one"), circle.say(ada, "two")]
        for frame in list(core.rest.history):
            assert isinstance(frame, MessageNew)
            await core.polled(frame)
        assert await notes_of(core).senders() == [PERSON]
        core.store.budgets = msgspec.structs.replace(core.store.budgets, waiting_bytes=1 << 20)
        assert await core.polled(circle.say(ben, "mine")) is Intake.ACCEPTED
        async with fetching(core):
            assert sorted(await handle(core, 3, hearing_all)) == ["mine", "one", "two"]


def few_notes(core: Core, most_held: int = 16) -> None:
    core.store.budgets = msgspec.structs.replace(core.store.budgets, most_held=most_held)


async def test_one_who_says_very_much_has_few_notes_and_holds_up_nobody(tmp_path: Path) -> None:
    """Ten times as many messages as there may be notes: the cursor moves, another is answered, and all of it comes once, in order."""
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        few_notes(core)
        ben = Person(core.rest, BEN)
        ben.meet()
        texts = [f"{number}" for number in range(160)]
        for start in range(0, 160, 40):
            said = await say(core, ada, *texts[start : start + 40])
            other = ben.say(f"ben {start}", conversation=f"{OTHER_CONVERSATION}{start}", seq=1)
            core.rest.history.append(other)
            await core.push(other)
            assert await core.catchup.poll_to_the_present()
            assert await core.store.cursor() == other.message_id
        assert await notes_of(core).count() <= 5
        assert core.count("message_held_total") >= 159
        async with open_core(core.url, core.rest) as successor, fetching(successor):
            let_nothing_wait(successor)
            few_notes(successor)
            handled = await handle(successor, 164)
            assert [text for text in handled if not text.startswith("ben")] == texts
            await until(lambda: nothing_waits(successor))
            assert await successor.polled(said[-1]) is Intake.DUPLICATE
            assert await successor.dead.count() == 0
            assert await successor.quarantine.count() == 0


async def test_what_cannot_be_read_when_it_is_fetched_stands_in_quarantine_with_an_offer(tmp_path: Path) -> None:
    """It was noted as authentic, and its session was lost meanwhile: it was never answered, so it is not `old`."""
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("first"))
        let_nothing_wait(core)
        waiting = await say(core, ada, "two", "three")
        assert await notes_of(core).count() == 2
        await core.client.command("DEL", core.keys.session(PERSON, "phone"))
        async with open_core(core.url, core.rest) as successor, fetching(successor):
            await until(lambda: nothing_waits(successor))
            assert [await successor.quarantined(frame) for frame in waiting] == ["unknown_prekey"] * 2
            assert successor.count("message_old_total") == 0
            assert successor.count("session_renewed_total") == 1
        assert await core.dead.count() == 0


async def test_what_the_relay_shows_in_place_of_a_noted_group_message_must_be_fresh(tmp_path: Path) -> None:
    """A note proves of one signed message that it was fresh, not of whatever comes under its message_id."""
    async with group_scene(tmp_path) as (core, circle, ada, _):
        answered = circle.say(ada, "answered long ago")
        await core.polled(answered)
        await core.client.command("DEL", core.keys.ids(answered.conversation_id))  # it is forgotten
        let_nothing_wait(core)
        noted = circle.say(ada, "noted")
        assert await core.polled(noted) is Intake.NOTED
        swapped = msgspec.structs.replace(
            answered, message_id=noted.message_id, conversation_seq=noted.conversation_seq
        )
        assert await core.inbound.fetched(swapped, noted="00") is not Intake.ACCEPTED
        assert await core.quarantined(swapped) == "stale"


async def test_for_whom_there_is_no_room_the_relay_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        await say(core, ada, "runs", "waits behind it")
        let_nothing_wait(core)
        await say(core, ada, "waits at the relay")
        notes, looks = notes_of(core), 0
        may_come = notes.may_come

        async def counted(*arguments: Any) -> bool:
            nonlocal looks
            looks += 1
            return await may_come(*arguments)

        monkeypatch.setattr(notes, "may_come", counted)
        await held(core, notes).fetch_if_there_is_room([PERSON])
        assert (looks, core.rest.calls.count("poll")) == (1, 0)


async def test_it_is_fetched_no_further_than_anything_is_wanted(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        await say(core, ada, "runs", "waits")
        core.rest.history += [message_frame("of others", BEN, seq=seq) for seq in range(3, 9)]
        core.rest.page_length = 2
        async with fetching(core):
            await handle(core, 2)
            await until(lambda: nothing_waits(core))
        assert len({*core.rest.polled_with}) == 1


def open_note(first: int, last: int) -> Note:
    return Note(1, first, CONVERSATION, f"m{last}", None, last_seq=last)


def test_an_open_ended_note_stands_for_what_its_sender_says_there_up_to_its_last() -> None:
    note = open_note(3, 5)
    wanted = WantedSender(PERSON, [note])
    of_others = [
        message_frame("", BEN, seq=4),
        message_frame("", PERSON, seq=4, conversation=OTHER_CONVERSATION),
        message_frame("", PERSON, seq=2),
        message_frame("", PERSON, seq=6),
    ]
    assert [wanted.note_for(frame) for frame in of_others] == [None] * 4
    for seq in (3, 4, 5):
        frame = message_frame("", PERSON, seq=seq)
        assert wanted.note_for(frame) is note
        wanted.came(note, frame)
        assert wanted.notes == ([] if seq == 5 else [note])


class Kept(Notes):
    """These notes, of messages that are gone at the relay in part; `has_room`: for their sender. `asked`: for which of them there was to be room."""

    def __init__(self, notes: list[Note], *, has_room: bool) -> None:
        self.notes = notes
        self.has_room = has_room
        self.asked: list[Note] = []
        self.reached_seqs: list[int] = []

    async def of(self, sender_id: str) -> list[Note]:  # noqa: ARG002 - as Notes
        await trio.lowlevel.checkpoint()
        return list(self.notes)

    async def may_come(self, sender_id: str, note: Note, budgets: StoreBudgets) -> bool:  # noqa: ARG002 - as Notes
        await trio.lowlevel.checkpoint()
        self.asked.append(note)
        return self.has_room

    async def reached(self, sender_id: str, note: Note, seq: int, message_id: str) -> bool:  # noqa: ARG002 - as Notes
        await trio.lowlevel.checkpoint()
        self.reached_seqs.append(seq)
        return len(self.reached_seqs) > 1


async def test_what_of_an_open_ended_note_never_came_is_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        notes = Kept([open_note(1, 2)], has_room=True)
        core.rest.history += [ada.say(text) for text in ("one", "two")]
        await held(core, notes).fetch_if_there_is_room([PERSON])
        assert notes.reached_seqs == [1, 2]
        assert core.count("dead_letter_total", kind="held") == 1


async def test_what_an_open_ended_note_stands_for_is_fetched_behind_the_single_ones(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        singles = [Note(number, number, CONVERSATION, f"m{number}", None) for number in (1, 2)]
        notes = Kept([*singles, open_note(3, 5)], has_room=False)
        fetches = held(core, notes)
        await fetches.fetch_if_there_is_room([PERSON])
        assert notes.asked == singles[:1], "both singles are one walk, which begins with the first"
        del notes.notes[:2]
        await fetches.fetch_if_there_is_room([PERSON])
        assert notes.asked == [singles[0], *notes.notes]
