"""A loop over the relay's pages comes to the present, or stops by name with a pause that grows: never deaf, never in haste."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest
import structlog
import trio
import trio.testing

from bus.steps.work_lease import WorkLease
from supervisor.inbound.catchup import DEAF_AFTER_SECONDS, MISSED_SECONDS, MOST_RETRY_SECONDS, Catchup, StoppedBy
from supervisor.inbound.unpolled import MOST_UNPOLLED, UnpolledPushes
from supervisor.relay.frames import MessageNew
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import Page, Rest, RestFailed
from tests.supervisor.builders import WAIT_SECONDS, Core, until
from tests.supervisor.inbound.test_catchup import NOTHING_TO_DO, poll, recent
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import AGENT, CONVERSATION
from tests.waiting import waiting_for

Answer = Callable[[str | None], Sequence[object] | int]
"""What a poll with this cursor gives: entries, or a status."""


def catchup_of(core: Core, rest: Rest) -> Catchup:
    """Of this supervisor, at another relay."""
    lease = WorkLease(core.client, core.keys.work_lease("poll"), holder=core.instance.name)
    return Catchup(
        core.store,
        lease,
        rest=rest,
        inbound=core.inbound,
        metrics=core.metrics,
        polls=core.polls,
        first_sync_seconds=86400,
    )


def catchup_alone(inbound: object, polls: PollWish | None = None) -> Catchup:
    """Of which nothing is asked but of its inbound; it is to poll at once."""
    polls = polls or PollWish()
    polls.ask()
    return Catchup(None, None, rest=None, inbound=inbound, metrics=None, polls=polls, first_sync_seconds=0)  # type: ignore[arg-type]


@asynccontextmanager
async def polling(core: Core, answer: Answer) -> AsyncIterator[tuple[Catchup, list[str | None]]]:
    """Catch-up with a relay that answers so, over httpx; and the cursors that it was asked with."""
    asked: list[str | None] = []

    def hear(request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/poll"):
            return httpx2.Response(200, json={"data": [msgspec.to_builtins(one) for one in core.rest.related]})
        asked.append(request.url.params.get("cursor"))
        said = answer(asked[-1])
        if isinstance(said, int):
            return httpx2.Response(said, json={"error": {"code": "INVALID_CURSOR"}})
        return httpx2.Response(200, json={"data": list(said)})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(hear), base_url="http://relay") as client:
        yield catchup_of(core, Rest(client, AGENT)), asked


def entry(frame: MessageNew) -> object:
    return msgspec.to_builtins(recent(frame))


async def test_a_relay_that_heeds_no_cursor_is_not_asked_in_haste_and_pushes_are_taken_in(tmp_path: Path) -> None:
    """232 polls a second, then deaf after 321 pushes of a conversation."""
    async with scene(tmp_path) as (core, ada):
        entries = [entry(ada.say(payload=NOTHING_TO_DO)) for _ in range(3)]
        async with polling(core, lambda _cursor: entries) as (catchup, asked), trio.open_nursery() as nursery:
            core.polls.ask()
            nursery.start_soon(catchup.run)
            await until(lambda: is_so(len(asked) == 2))
            for _ in range(MOST_UNPOLLED + 20):
                core.inbound.push(ada.say(payload=NOTHING_TO_DO))
                if core.inbound.under_way > 200:
                    await core.until_idle()
            await core.until_idle()
            assert core.count("frame_dropped_total", reason="hold") == 0
            assert len(asked) <= 4
            assert "heeds no cursor" in catchup.check().detail
            nursery.cancel_scope.cancel()


async def is_so(fact: bool) -> bool:
    await trio.lowlevel.checkpoint()
    return fact


async def test_the_pause_grows_while_pages_lead_nowhere_and_a_new_connection_ends_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at: list[float] = []
    catchup = catchup_alone(_Inbound())

    async def leads_nowhere() -> StoppedBy:
        asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return StoppedBy.NOWHERE

    monkeypatch.setattr(catchup, "poll", leads_nowhere)
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(catchup.run)
            await trio.sleep(200)
            assert asked_at == [0, 1, 3, 7, 15, 31, 63, 123, 183]
            catchup.connected()
            await trio.testing.wait_all_tasks_blocked()
            assert asked_at[-1] == 200
            nursery.cancel_scope.cancel()
    assert {line["reason"] for line in lines} == {StoppedBy.NOWHERE.value}


async def test_the_pause_begins_anew_when_the_present_was_reached(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at: list[float] = []
    catchup = catchup_alone(_Inbound())

    async def the_fourth_time_all_is_well() -> StoppedBy:
        asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return StoppedBy.PRESENT if len(asked_at) == 4 else StoppedBy.NOWHERE

    monkeypatch.setattr(catchup, "poll", the_fourth_time_all_is_well)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catchup.run)
        await trio.sleep(75)
        assert asked_at == [0, 1, 3, 7, 67, 68, 70, 74]
        nursery.cancel_scope.cancel()


async def test_while_redis_is_nearly_full_the_pause_grows_and_ends_with_that(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at: list[float] = []
    inbound = _Inbound()
    catchup = catchup_alone(inbound)

    async def is_not_taken() -> StoppedBy:
        asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return StoppedBy.NOT_TAKEN

    monkeypatch.setattr(catchup, "poll", is_not_taken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catchup.run)
        await trio.sleep(200)
        assert asked_at == [0, 2, 5, 10, 19, 36, 69, 130, 191]
        inbound.has_room.set()
        await trio.sleep(0.5)
        assert asked_at[-1] == 200, "as soon as there is room"
        nursery.cancel_scope.cancel()


class _Inbound:
    def __init__(self) -> None:
        self.has_room = trio.Event()
        self.unpolled = UnpolledPushes(PollWish())

    async def wait_while_paused(self) -> None:
        await self.has_room.wait()


async def test_a_page_that_begins_with_the_cursors_own_message_ends(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        entries = [entry(ada.say(f"{number}")) for number in range(5)]
        ids = [one["message_id"] for one in entries if isinstance(one, dict)]

        def inclusive(cursor: str | None) -> Sequence[object]:
            at = 0 if cursor is None else ids.index(cursor)
            return entries[at : at + 2]

        async with polling(core, inclusive) as (catchup, asked):
            assert await catchup.poll_to_the_present()
            assert asked == [None, ids[1], ids[2], ids[3], ids[4]]
            assert catchup.check().detail == "caught up 0 s ago"
        assert await core.jobs() == ["0", "1", "2", "3", "4"]


async def test_pages_that_go_round_in_a_circle_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        one, two = [entry(ada.say("one"))], [entry(ada.say("two"))]
        more = [entry(ada.say("three")), one[0]]
        pages = iter([one, two, more, two])
        async with polling(core, lambda _cursor: next(pages)) as (catchup, asked):
            assert not await catchup.poll_to_the_present()
            assert len(asked) == 3


async def test_a_page_without_ids_ends_the_poll_by_name(tmp_path: Path) -> None:
    unnamed = [{"type": "message.new"}, 7]
    async with scene(tmp_path) as (core, _), polling(core, lambda _cursor: unnamed) as (catchup, asked):
        assert await catchup.poll() is StoppedBy.NO_IDS
        assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_a_cursor_that_the_relay_no_longer_knows_is_answered_from_the_oldest_kept(
    tmp_path: Path, status: int
) -> None:
    """Relays purge: deaf for good, restart included."""
    async with scene(tmp_path) as (core, ada):
        kept = [entry(ada.say("kept")), entry(ada.say("new"))]
        ids = [one["message_id"] for one in kept if isinstance(one, dict)]
        await core.store.advance_cursor(None, "purged")

        def purged(cursor: str | None) -> Sequence[object] | int:
            if cursor not in (None, *ids):
                return status
            return kept[0 if cursor is None else ids.index(cursor) + 1 :]

        async with polling(core, purged) as (catchup, asked):
            assert await catchup.poll_to_the_present()
            assert asked == ["purged", None, ids[1]]
        assert await core.store.cursor() == ids[1]
        assert await core.jobs() == ["kept", "new"]


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_relay_that_does_not_answer_at_all_is_not_asked_for_the_oldest(tmp_path: Path, status: int) -> None:
    async with scene(tmp_path) as (core, _):
        await core.store.advance_cursor(None, "known")
        async with polling(core, lambda _cursor: status) as (catchup, asked):
            with pytest.raises(RestFailed):
                await catchup.poll_to_the_present()
            assert asked == ["known"]


@pytest.mark.parametrize("cursor", ["x" * 70_000, "zwei\nzeilen", "é"])
async def test_a_cursor_that_is_no_id_is_none(tmp_path: Path, cursor: str) -> None:
    """An older version could store one, and ended at each start."""
    async with scene(tmp_path) as (core, ada):
        await core.store.advance_cursor(None, cursor)
        said = entry(ada.say())
        async with polling(core, lambda asked: [] if asked else [said]) as (catchup, asked):
            assert await catchup.poll_to_the_present()
            assert asked[0] is None
        assert await core.jobs() == ["hello"]


async def test_a_relay_that_knows_no_cursor_at_all_is_asked_from_the_oldest_and_then_left_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        entries = [entry(ada.say("one")), entry(ada.say("two"))]
        async with polling(core, lambda cursor: 400 if cursor else entries) as (catchup, asked):
            assert await catchup.poll() is StoppedBy.NOWHERE
            assert len(asked) == 3
        assert await core.jobs() == ["one", "two"]


async def test_another_supervisor_that_moves_the_cursor_into_a_page_that_was_read_is_not_taken_for_a_relay_that_errs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages end elsewhere: how much fits into one depends on its bytes, and on what the relay had when it was asked."""
    async with scene(tmp_path) as (core, ada):
        frames = [ada.say(text) for text in ("one", "two", "three")]
        ids = [frame.message_id for frame in frames]
        advance = core.store.advance_cursor

        async def both_advance(expected: str | None, new: str) -> bool:
            if expected is None:
                await advance(None, ids[0])
            return await advance(expected, new)

        def after(cursor: str | None) -> list[object]:
            return [entry(frame) for frame in frames[ids.index(cursor) + 1 if cursor else 0 :]]

        monkeypatch.setattr(core.store, "advance_cursor", both_advance)
        async with polling(core, after) as (catchup, asked):
            assert await catchup.poll() is StoppedBy.PRESENT
            assert asked == [None, ids[0], ids[2]]
        assert await core.jobs() == ["one", "two", "three"]


async def test_two_supervisors_between_which_the_cursor_goes_back_and_forth_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        frames = [ada.say("one"), ada.say("two")]
        first = frames[0].message_id
        advance = core.store.advance_cursor

        async def other_goes_back(expected: str | None, new: str) -> bool:
            moved = await advance(expected, new)
            if expected is not None:
                await advance(new, first)
            return moved

        monkeypatch.setattr(core.store, "advance_cursor", other_goes_back)
        async with polling(core, lambda cursor: [entry(frames[cursor == first])] * 2) as (catchup, asked):
            with waiting_for("a poll that leads nowhere to end", WAIT_SECONDS):
                assert await catchup.poll() is StoppedBy.NOWHERE
            assert asked == [None, first, first]


async def test_what_comes_again_after_a_purge_and_is_forgotten_is_noted_and_neither_kept_nor_answered(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        said = [recent(ada.say(f"{number}")) for number in range(4)]
        core.rest.history += said
        assert await poll(core)
        assert await core.jobs() == ["0", "1", "2", "3"]
        await core.client.command("SET", core.keys.ids(CONVERSATION), b"")  # as after 1,024 more
        await core.store.advance_cursor(await core.store.cursor(), "purged")
        for _ in range(2):
            assert await poll(core)
            await core.store.advance_cursor(await core.store.cursor(), "purged")
        assert await core.quarantine.count() == 0
        assert core.count("message_old_total") == 4
        assert core.count("session_renewed_total") == 0
        assert await core.client.command("ZCARD", core.keys.old) == 4
        assert await core.client.command("LLEN", core.keys.out_box(CONVERSATION)) == 0
        assert await core.jobs() == []


async def test_what_is_not_below_next_and_cannot_be_read_is_no_old_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        said = ada.say("one")
        await core.polled(said)
        await core.client.command("SET", core.keys.ids(CONVERSATION), b"")
        again = msgspec.structs.replace(said, message_id="again", conversation_seq=2)
        await core.polled(again)
        assert await core.quarantined(again) == "key_used"
        assert core.count("session_renewed_total") == 1


async def test_a_supervisor_that_has_not_caught_up_for_long_is_not_ready_and_says_why(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    catchup = catchup_alone(_Inbound())

    async def fails() -> StoppedBy:
        await trio.lowlevel.checkpoint()
        raise RestFailed("poll", 503, "unavailable")

    monkeypatch.setattr(catchup, "poll", fails)
    assert catchup.check().ok
    with trio.move_on_after(DEAF_AFTER_SECONDS + 1):
        await catchup.run()
    check = catchup.check()
    assert (check.name, check.ok) == ("catch-up", False)
    assert check.detail == "not caught up yet: the relay does not answer"


async def test_what_was_pushed_and_waits_for_a_poll_that_fails_is_deafness_after_half_a_minute(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever missed one push was deaf, and readiness showed nothing of it for three minutes."""
    polls, answers = PollWish(), False
    catchup = catchup_alone(_Inbound(), polls)

    async def tried() -> StoppedBy:
        await trio.lowlevel.checkpoint()
        if not answers:
            raise RestFailed("poll", 0, "no whole answer within 15 s")
        return StoppedBy.PRESENT

    monkeypatch.setattr(catchup, "poll", tried)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catchup.run)
        await trio.sleep(2 * MISSED_SECONDS)
        assert catchup.check().ok, "nobody waits for it"
        polls.missed()
        await trio.sleep(MISSED_SECONDS - 1)
        assert catchup.check().ok
        await trio.sleep(1)
        check = catchup.check()
        assert not check.ok
        assert (
            check.detail == "not caught up yet, and messages have waited for a poll for 30 s: the relay does not answer"
        )
        answers = True
        await trio.sleep(MOST_RETRY_SECONDS + 1)
        assert catchup.check().ok
        nursery.cancel_scope.cancel()


async def test_what_is_missed_while_a_poll_runs_waits_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    polls = PollWish()
    first_at = trio.current_time()
    polls.missed()
    polls.begin()
    await trio.sleep(1)
    polls.missed()
    polls.served()
    assert polls.missed_since == first_at
    polls.begin()
    polls.ask()
    polls.served()
    assert polls.missed_since == math.inf


async def test_a_push_out_of_turn_waits_for_a_poll(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("one"))
        assert core.polls.missed_since == math.inf
        ada.say("lost on its way")
        await core.push(ada.say("three"))
        assert core.polls.missed_since < math.inf


async def test_pages_that_lead_nowhere_twice_in_a_row_are_not_ready_until_the_present(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    catchup = catchup_alone(_Inbound())
    ends = [StoppedBy.NOWHERE, StoppedBy.REDIS, StoppedBy.NO_IDS, StoppedBy.PRESENT, *[StoppedBy.NOWHERE] * 2]
    states: list[bool] = []

    async def ended() -> StoppedBy:
        await trio.lowlevel.checkpoint()
        states.append(catchup.check().ok)
        if len(states) > len(ends):
            await trio.sleep_forever()
        return ends[len(states) - 1]

    monkeypatch.setattr(catchup, "poll", ended)
    with trio.move_on_after(DEAF_AFTER_SECONDS / 2):
        await catchup.run()
    assert states == [True, True, True, False, True, True, False]


async def test_a_relay_that_knows_no_cursor_at_all_is_told_after_two_polls_and_not_while_new_messages_come(
    tmp_path: Path,
) -> None:
    """It took three minutes."""
    async with scene(tmp_path) as (core, ada):
        entries = [entry(ada.say("one")), entry(ada.say("two"))]
        relay = polling(core, lambda cursor: 400 if cursor else entries)
        async with relay as (catchup, asked), trio.open_nursery() as nursery:
            core.polls.ask()
            nursery.start_soon(catchup.run)
            states = []
            for requests in (3, 5, 7, 9, 13):
                with waiting_for(f"{requests} requests", WAIT_SECONDS):
                    while len(asked) < requests:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(asked) == requests
                states.append(catchup.check().ok)
                if requests == 9:
                    entries.append(entry(ada.say("three")))
                catchup.connected()
            assert states == [True, True, False, False, True]
            assert catchup.check().detail.endswith(f": {StoppedBy.NOWHERE.value}")
            nursery.cancel_scope.cancel()


async def test_caught_up_is_told_as_a_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        before = core.count("caught_up_timestamp_seconds")
        core.rest.history.append(recent(ada.say()))
        assert await poll(core)
        assert core.count("caught_up_timestamp_seconds") > before > 0
        assert core.catchup.check().ok


@pytest.mark.parametrize(
    ("page_seconds", "was_missed"), [(DEAF_AFTER_SECONDS / 2, False), (MISSED_SECONDS * 0.6, True)]
)
async def test_pages_that_move_on_are_no_deafness_however_many_there_are(
    tmp_path: Path, clock: trio.testing.MockClock, page_seconds: float, was_missed: bool
) -> None:
    async with scene(tmp_path) as (core, ada):
        if was_missed:
            core.polls.missed()
        core.rest.page_length = 1
        core.rest.history += [recent(ada.say(payload=NOTHING_TO_DO)) for _ in range(3)]
        rest_poll, details = core.rest.poll, list[str]()

        async def late(cursor: str | None) -> Page:
            clock.jump(page_seconds)
            details.append(core.catchup.check().detail)
            assert core.catchup.check().ok
            return await rest_poll(cursor)

        core.rest.poll = late  # type: ignore[method-assign]
        assert await core.catchup.poll_to_the_present()
        assert details == ["not caught up yet"] * 4
