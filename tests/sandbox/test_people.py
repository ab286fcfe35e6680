"""Simulated people with real keys against a real relay: the whole path of PROTOCOL §5 from both ends."""

from pathlib import Path

import trio

from crypto.errors import Reason
from sandbox.people import Person, connected, make_person
from tests.sandbox.relay import relay
from tests.sandbox.simulated_agent import simulated_agent
from tests.waiting import waiting_for


async def heard(person: Person, conversation_id: str, count: int) -> list[str]:
    """The first `count` answers, waited for."""
    with waiting_for(f"{count} answers to be heard", 10):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation_id)) >= count)
    return person.transcript.heard(conversation_id)


async def test_a_person_and_an_agent_talk_through_handshake_and_ratchet(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            for number in range(5):
                await ada.say(conversation, f"hello {number}")
                await heard(ada, conversation, number + 1)
        assert ada.transcript.heard(conversation) == [f"echo: hello {number}" for number in range(5)]
        assert [line.seq for line in ada.transcript.lines(conversation)] == list(range(1, 11))
        assert ada.counts["sessions_started"] == 1
        assert not ada.unreadable
        assert not ada.unacknowledged


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_the_relay_never_sees_the_text(tmp_path: Path) -> None:
    state_file = tmp_path / "relay.db"
    async with relay(tmp_path, "--state", str(state_file)) as (url, _), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await ada.say(conversation, "the secret of the day")
            await heard(ada, conversation, 1)
        kept = everything_in(tmp_path)
        assert b"secret of the day" not in kept
        assert conversation.encode() in kept


async def test_a_streamed_answer_grows_and_ends_as_one_line(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await ada.say(conversation, "/stream one two three")
            assert await heard(ada, conversation, 1) == ["echo: one two three"]
        assert ada.counts["streams"] == 1
        assert ada.counts["deltas"] == 4
        assert not ada.unreadable


async def test_typing_is_seen_and_over_with_the_answer(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await ada.say(conversation, "hi")
            await heard(ada, conversation, 1)
        assert ada.counts["typing"] == 1
        assert not ada.typing


async def test_what_was_answered_while_a_person_was_away_is_fetched_once_and_in_order(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await ada.say(conversation, "0")
            await heard(ada, conversation, 1)
            for number in range(1, 8):
                await ada.say(conversation, str(number))
                await api.fault("disconnect", owner_id=ada.account.user_id)
            assert await heard(ada, conversation, 8) == [f"echo: {number}" for number in range(8)]
        assert ada.counts["connections_lost"] >= 1
        assert not ada.unreadable


async def test_a_lost_ack_makes_the_same_bytes_go_again_and_nothing_twice(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await api.fault("lose_acks", owner_id=ada.account.user_id)
            await ada.say(conversation, "once")
            await heard(ada, conversation, 1)
            assert ada.unacknowledged == 1
            await api.fault("disconnect", owner_id=ada.account.user_id)
            with waiting_for("the message to be acknowledged", 5):
                await ada.transcript.until(lambda: not ada.unacknowledged)
        stats = await api.stats()
        assert stats.owners[ada.account.user_id]["repeats"] == 1
        assert ada.transcript.heard(conversation) == ["echo: once"]


async def test_a_refused_send_goes_again_later(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        async with connected(ada):
            await api.fault("send_429", owner_id=ada.account.user_id, retry_after=0.1)
            await ada.say(conversation, "patience")
            assert await heard(ada, conversation, 1) == ["echo: patience"]
        assert ada.counts["send_refused_429"] == 1


async def test_two_devices_of_one_person_have_sessions_of_their_own(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        phone = await make_person(url, "Ada")
        tablet = phone.other_device()
        await tablet.register()
        conversation = await phone.meet(agent.account.agent_id)
        tablet.join(conversation, agent.account.agent_id)
        async with connected(phone, tablet):
            await phone.say(conversation, "from the phone")
            await heard(phone, conversation, 1)
            await heard(tablet, conversation, 1)
            await tablet.say(conversation, "from the tablet")
            assert await heard(phone, conversation, 2) == ["echo: from the phone", "echo: from the tablet"]
            assert await heard(tablet, conversation, 2) == ["echo: from the phone", "echo: from the tablet"]
        assert not phone.unreadable
        assert not tablet.unreadable


async def test_a_person_whose_sessions_are_gone_makes_a_new_one_by_itself(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        phone = await make_person(url, "Ada")
        tablet = phone.other_device()
        await tablet.register()
        conversation = await phone.meet(agent.account.agent_id)
        tablet.join(conversation, agent.account.agent_id)
        async with connected(phone, tablet):
            await phone.say(conversation, "before")
            await heard(tablet, conversation, 1)
            phone.forget_sessions()
            await tablet.say(conversation, "unreadable on the phone")
            with waiting_for("the session to be renewed at both ends", 5):
                await phone.transcript.until(lambda: phone.counts["sessions_started"] == 2)
                while "session.renewed" not in agent.kinds_of_events():
                    await trio.lowlevel.checkpoint()
            await tablet.say(conversation, "after")
            assert await heard(phone, conversation, 2) == ["echo: before", "echo: after"]
        assert phone.unreadable == {Reason.NO_SESSION: 1}


async def test_after_fifty_unanswered_messages_the_person_asks_for_an_answer(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        ada = await make_person(url, "Ada")
        conversation = await ada.meet(agent.account.agent_id)
        for number in range(50):
            await ada.say(conversation, str(number))
        async with connected(ada):
            await heard(ada, conversation, 50)
            with waiting_for("the session's ping to be heard", 5):
                while {"kind": "session.ping"} not in agent.events:
                    await trio.lowlevel.checkpoint()
