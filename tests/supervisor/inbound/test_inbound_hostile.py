"""Inbound: no one message, record or answer of the relay takes the process down or is judged wrongly."""

from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing

from bus.steps.store import Intake
from crypto.renewal import Renewal
from supervisor.relay.rest import Rest
from tests.supervisor.builders import open_core
from tests.supervisor.doubles import relations_of
from tests.supervisor.inbound.test_inbound import OTHER_CONVERSATION, scene
from tests.supervisor.person import AGENT, CONVERSATION, Person, relation_of


@pytest.mark.parametrize("payload", [{"n": 10**30}, {"n": -(10**30)}, {"attachments": [{"size": 2**64}]}])
async def test_a_number_that_no_record_holds_is_one_persons_problem(tmp_path: Path, payload: dict[str, object]) -> None:
    """Any granted person can end the process with it, again at each restart."""
    async with scene(tmp_path) as (core, ada):
        said = ada.say(payload={"type": "text", "text": "x", **payload})
        await core.push(said)
        assert await core.quarantined(said) == "bad_payload"
        await core.push(ada.say("next"))
        assert await core.jobs() == ["next"]


async def test_a_message_that_follows_its_relation_within_a_second_of_the_last_reading_is_taken_in(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, _):
        await core.owners.refresh()  # as after auth.ok
        bob = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        bob.meet()  # the relay knows; its frame is still on its way through our queue
        said = bob.say(seq=1, conversation=OTHER_CONVERSATION)
        await core.push(said)
        assert await core.quarantined(said) is None


async def test_a_message_between_a_relation_and_its_pin_is_not_of_an_unknown_sender(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        put, first_is_in, go_on = core.ledger.put, trio.Event(), trio.Event()

        async def slow(*arguments: object) -> bool:
            done = await put(*arguments)  # type: ignore[arg-type]
            first_is_in.set()
            await go_on.wait()
            return done

        core.ledger.put = slow  # type: ignore[method-assign,assignment]
        said = ada.say()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.owners.note, relation_of(ada), "active")
            await first_is_in.wait()
            core.inbound.push(said)
            await trio.testing.wait_all_tasks_blocked(0.1)
            go_on.set()
        while core.inbound.under_way:
            await trio.sleep(0.001)
        assert await core.quarantined(said) is None


async def test_a_session_record_that_does_not_open_costs_its_own_messages_only(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("one"))
        key = core.keys.session(ada.user_id, ada.device.device_id)
        await core.client.command("HSET", key, "b", b"damaged", "v", 7)
        await core.push(ada.say("two"))
        bob = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        await core.owners.note(relation_of(bob), "active")
        assert await core.polled(bob.say("hello", conversation=OTHER_CONVERSATION)) is Intake.ACCEPTED


async def test_what_fails_with_a_session_that_is_no_longer_is_tried_again_with_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and our opening another supervisor took in the first message and erased its one-time prekey."""
    monkeypatch.setattr(
        "supervisor.inbound.reading_persons.renewal_due", lambda *_, **__: Renewal.NONE
    )  # within its limits
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        first, second = ada.say("first"), ada.say("second", seq=1, conversation=OTHER_CONVERSATION)
        find = core.prekeys.find

        async def find_late(*arguments: object) -> object:
            assert await other.polled(first) in (Intake.ACCEPTED, Intake.DUPLICATE)
            return await find(*arguments)  # type: ignore[arg-type]

        core.prekeys.find = find_late  # type: ignore[method-assign,assignment]
        assert await core.polled(second) is Intake.ACCEPTED
        assert await core.quarantined(second) is None


async def test_one_malformed_relation_does_not_hide_the_others(tmp_path: Path) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"data": [{"user_id": 7}, {"user_id": "u", "scopes": []}]})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://relay") as client:
        assert [relation.user_id for relation in await relations_of(Rest(client, AGENT))] == ["u"]


async def test_two_people_in_a_new_conversation_at_two_supervisors_do_not_share_it(tmp_path: Path) -> None:
    """The pin is checked in the commit too, not only before it."""
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        eve = Person(core.rest, "01906abc-0000-7000-8000-0000000000e1")
        for person in (ada, eve):
            person.meet()
            await core.owners.note(relation_of(person), "active")
        intruding, find = eve.say("intruding", seq=2), core.prekeys.find

        async def find_late(*arguments: object) -> object:
            await other.polled(ada.say("mine", conversation=CONVERSATION, seq=1))
            return await find(*arguments)  # type: ignore[arg-type]

        core.prekeys.find = find_late  # type: ignore[method-assign,assignment]
        await core.polled(intruding)
        assert await core.quarantined(intruding) == "not_for_us"


async def test_devices_that_no_list_names_do_not_fill_redis(tmp_path: Path) -> None:
    """PROTOCOL §5 Identity: a device counts only with a valid signed prekey under the pinned pair, and at most 5 do."""
    async with scene(tmp_path) as (core, ada):
        for number in range(20):
            phone = Person(core.rest, device_id=f"made-up-{number}")
            phone.identity = ada.identity
            phone.device = type(ada.device)(ada.user_id, f"made-up-{number}", ada.identity)
            phone.state = type(ada.state)(phone.device)
            await core.push(phone.say(f"{number}", seq=number + 1))
        keys = await core.client.command(
            "KEYS", core.keys.session(ada.user_id, "*").replace("{", "?").replace("}", "?")
        )
        assert isinstance(keys, list)
        assert len(keys) <= 5
