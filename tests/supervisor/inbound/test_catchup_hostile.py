"""Catch-up: nothing is lost, answered out of order, or held for ever, whatever the relay's pages hold."""

from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec
import pytest
import trio

from bus.steps.store import Intake
from supervisor.relay.frames import MessageNew
from supervisor.relay.rest import Rest
from tests.supervisor.builders import WAIT_SECONDS, Core
from tests.supervisor.inbound.test_catchup import fail_reading_once, poll, recent
from tests.supervisor.inbound.test_catchup_progress import catchup_of
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import AGENT, Person
from tests.waiting import until, waiting_for


async def test_after_a_message_that_could_not_be_taken_in_its_conversation_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second jumps over the first, which comes late: P3."""
    async with scene(tmp_path) as (core, ada):
        core.rest.history += [recent(ada.say("one")), recent(ada.say("two"))]
        fail_reading_once(monkeypatch, of=ada.user_id)
        assert not await poll(core)
        assert await poll(core)
        assert core.count("message_late_total") == 0


async def test_every_page_of_the_first_sync_skips_what_is_too_old(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.page_length = 2
        core.rest.history += [recent(ada.say(f"{number}"), hours_ago=100) for number in range(4)]
        core.rest.history.append(recent(ada.say("young")))
        assert await poll(core)
        assert await core.jobs() == ["young"]


async def test_what_came_after_the_first_start_is_never_too_old(tmp_path: Path) -> None:
    """Started, nothing came, host off for two days: P1 holds for what came in between."""
    async with scene(tmp_path) as (core, ada):
        assert await poll(core)  # the first start: nothing there
        core.rest.history.append(recent(ada.say("while we were away"), hours_ago=48))
        assert await poll(core)
        assert await core.jobs() == ["while we were away"]


def relay(core: Core, entries: Sequence[object]) -> httpx2.AsyncClient:
    ids = [entry.get("message_id") for entry in entries if isinstance(entry, dict)]

    def answer(request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/poll"):
            return httpx2.Response(200, json={"data": [msgspec.to_builtins(r) for r in core.rest.related]})
        cursor = request.url.params.get("cursor")
        start = 0 if cursor is None else ids.index(cursor) + 1
        return httpx2.Response(200, json={"data": list(entries[start:])})

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://relay")


def entry_of(frame: MessageNew) -> dict[str, object]:
    entry = msgspec.to_builtins(recent(frame))
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize("place", [0, 1])
async def test_a_malformed_frame_in_a_page_is_counted_and_the_rest_is_taken_in(tmp_path: Path, place: int) -> None:
    """Else it ends the process, and the next one again."""
    async with scene(tmp_path) as (core, ada):
        entries = [entry_of(ada.say())]
        entries.insert(place, {"type": "message.new", "message_id": "m", "conversation_seq": "seven"})
        async with relay(core, entries) as client:
            catchup = catchup_of(core, Rest(client, AGENT))
            with waiting_for("the catch-up to reach the present", WAIT_SECONDS):
                assert await catchup.poll_to_the_present()
        assert core.count("frame_dropped_total", reason="malformed") == 1
        assert await core.jobs() == ["hello"]


async def test_a_last_entry_without_an_id_does_not_make_a_page_empty(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        entries = [entry_of(ada.say()), {"type": "of the future"}]
        async with relay(core, entries) as client:
            catchup = catchup_of(core, Rest(client, AGENT))
            with trio.move_on_after(1):
                await catchup.poll_to_the_present()
        assert await core.jobs() == ["hello"]


async def test_a_person_whose_relations_cannot_be_read_does_not_hold_other_conversations_up(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say())
        stranger = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        core.rest.hold_next("relations")
        asked = core.rest.calls.count("relations")
        core.inbound.push(stranger.say(seq=1, conversation="neighbour"))
        await until(lambda: core.rest.calls.count("relations") > asked, WAIT_SECONDS)
        with waiting_for("a message to be accepted while the relations of a stranger are asked for", 2):
            assert await core.polled(ada.say("not held up", seq=3)) is Intake.ACCEPTED
