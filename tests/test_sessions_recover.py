"""Sessions that fell out of step come back by themselves; what could not be read stands in quarantine."""

from pathlib import Path

from bus.transport.client import open_redis
from crypto.errors import Reason
from sandbox.people import Person, connected
from tests.waiting import waiting_for
from tests.world import World, world

WAIT_SECONDS = 20.0


async def heard(person: Person, conversation: str, text: str) -> None:
    with waiting_for(f"{text!r} to be heard", WAIT_SECONDS):
        await person.transcript.until(lambda: text in person.transcript.heard(conversation))


async def forget_the_session(w: World, person: Person) -> None:
    """As after a lost store: the supervisor's record of the person's device is gone."""
    async with open_redis(f"unix://{w.redis_socket}") as client:
        assert await client.command("DEL", w.keys.session(person.account.user_id, person.device.device_id)) == 1


async def quarantine_reasons(w: World) -> list[str]:
    async with open_redis(f"unix://{w.redis_socket}") as client:
        ids = await client.command("ZRANGE", w.keys.quarantine, 0, -1)
        assert isinstance(ids, list)
        reasons = [
            await client.command("HGET", w.keys.quarantined(str(i, "ascii")), "why")
            for i in ids
            if isinstance(i, bytes)
        ]
    return [reason.decode() for reason in reasons if isinstance(reason, bytes)]


async def test_an_agent_that_lost_a_session_starts_a_new_one_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "before")
        await heard(ada, conversation, "echo: before")
        await forget_the_session(w, ada)
        await ada.say(conversation, "unreadable")
        await w.until(lambda: ada.counts["event_session.renewed"] == 1)
        await ada.say(conversation, "after")
        await heard(ada, conversation, "echo: after")
        assert await quarantine_reasons(w) == [Reason.NO_SESSION]
        assert 'hashee_decrypt_failure_total{reason="no_session"} 1.0' in w.page("/metrics")


async def test_a_person_who_lost_the_sessions_is_answered_in_a_new_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "before")
        await heard(ada, conversation, "echo: before")
        ada.forget_sessions()
        await ada.say(conversation, "after a reinstallation")
        await heard(ada, conversation, "echo: after a reinstallation")
        assert not ada.unreadable


async def test_a_second_device_of_a_person_is_answered_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "from the first")
        await heard(ada, conversation, "echo: from the first")
        phone = ada.other_device()
        await phone.register()
        phone.join(conversation, w.environment["HASHEE_AGENT_ID"])
        async with connected(phone):
            await phone.say(conversation, "from the second")
            await heard(phone, conversation, "echo: from the second")


async def test_a_one_way_conversation_is_kept_alive_by_pings(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:talkative") as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "go on")
        with waiting_for("all 60 lines to be heard", WAIT_SECONDS):
            await ada.transcript.until(lambda: len(ada.transcript.heard(conversation)) == 60)
        await w.until(lambda: ada.counts["event_session.ping"] == 1)
        assert ada.transcript.heard(conversation) == [f"line {number}" for number in range(60)]
