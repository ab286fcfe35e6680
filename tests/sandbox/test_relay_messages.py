"""The relay as PROTOCOL §2, §3 and §6 have it, against a real relay process."""

from pathlib import Path

import pytest
import trio

from sandbox.api import ApiRefused, RelayApi
from sandbox.children import relay_process
from sandbox.relay.serve import NotLoopback, listen_on_loopback
from supervisor.relay.frames import (
    Auth,
    AuthError,
    MessageAck,
    MessageError,
    MessageNew,
    MessageRecall,
    MessageRecalled,
    PrekeysLow,
    RelationEstablished,
    RelationRevoked,
    TypingStart,
)
from supervisor.relay.websocket import open_websocket
from tests.sandbox.relay import (
    Client,
    Talk,
    agent_client,
    device,
    make_talk,
    message,
    person_client,
    polled,
    relay,
    say,
    talk,
    until,
)
from tests.waiting import waiting_for


async def test_a_message_is_numbered_acknowledged_and_pushed_both_ways(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), agent_client(it) as agent, person_client(it) as person:
        ack = await say(person, it, "hello")
        pushed = await agent.receive()
        assert isinstance(pushed, MessageNew)
        assert (ack.conversation_seq, pushed.conversation_seq, pushed.encrypted_payload) == (1, 1, "hello")
        assert (pushed.sender_id, pushed.sender_type, pushed.sender_device_id) == (it.person.user_id, "human", "phone")
        assert (pushed.conversation_type, pushed.message_id) == ("h2a", ack.message_id)
        await say(agent, it, "answer")
        answer = await person.receive()
        assert isinstance(answer, MessageNew)
        assert (answer.conversation_seq, answer.sender_type, answer.sender_id) == (2, "agent", it.agent.agent_id)


async def test_a_repeat_is_answered_with_the_first_ack_and_pushed_to_nobody(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        frame = message(it, "once")
        await agent.send(frame)
        first = await agent.receive()
        await agent.send(frame)
        assert await agent.receive() == first
        assert isinstance(await person.receive(), MessageNew)
        assert await person.silent()
        assert (await api.stats()).owners[it.agent.agent_id]["repeats"] == 1


async def test_what_was_said_while_nobody_listened_is_polled_oldest_first(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), person_client(it) as person:
        for number in range(5):
            await say(person, it, str(number))
        first = await polled(it, limit=2)
        rest = await polled(it, first[-1].message_id)
        assert [entry.encrypted_payload for entry in first + rest] == ["0", "1", "2", "3", "4"]
        assert await polled(it, rest[-1].message_id) == []


async def test_an_agents_own_message_is_a_cursor_too(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), person_client(it) as person, agent_client(it) as agent:
        await say(person, it, "before")
        assert isinstance(await agent.receive(), MessageNew)
        own = await say(agent, it, "own")
        await say_after_push(person, it)
        assert [entry.encrypted_payload for entry in await polled(it, own.message_id)] == ["after"]


async def say_after_push(person: Client, it: Talk) -> None:
    assert isinstance(await person.receive(), MessageNew)
    await say(person, it, "after")


async def test_a_person_fetches_what_it_missed_by_seq(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _):
        async with agent_client(it) as agent:
            for number in range(3):
                await say(agent, it, str(number))
        async with RelayApi(it.url, it.person.access_token) as api:
            path = f"/conversations/{it.conversation_id}/messages?after_seq=1"
            missed = await api.call("GET", path, list[MessageNew])
        assert [(entry.conversation_seq, entry.encrypted_payload) for entry in missed] == [(2, "1"), (3, "2")]


async def test_every_device_of_a_person_gets_the_agents_messages(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _):
        async with RelayApi(it.url, it.person.access_token) as own:
            await own.call("POST", "/users/me/devices", dict[str, object], device("tablet"))
        async with agent_client(it) as agent, person_client(it) as phone, person_client(it, "tablet") as tablet:
            await say(agent, it, "to both")
            assert isinstance(await phone.receive(), MessageNew)
            assert isinstance(await tablet.receive(), MessageNew)


async def test_conversations_are_spread_over_three_connections_and_stay_where_they_are(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api):
        first = await make_talk(url, api)
        async with agent_client(first) as a, agent_client(first) as b, agent_client(first) as c:
            used = set()
            for _ in range(12):
                person = await api.add_person("someone")
                async with RelayApi(url, person.access_token) as own:
                    await own.call("POST", "/users/me/devices", dict[str, object], device("phone"))
                conversation = await api.relate(person.user_id, first.agent.agent_id)
                it = Talk(url, first.agent, person, conversation)
                # relation.established goes over the oldest connection
                assert isinstance(await a.receive(), RelationEstablished)
                async with person_client(it) as speaker:
                    places = {await place_of_push(speaker, it, (a, b, c)) for _ in range(3)}
                assert len(places) == 1
                used |= places
            assert len(used) > 1


async def place_of_push(speaker: Client, it: Talk, clients: tuple[Client, ...]) -> int:
    await say(speaker, it, "where?")
    found: list[int] = []
    async with trio.open_nursery() as nursery:

        async def wait(place: int) -> None:
            await clients[place].receive()
            found.append(place)
            nursery.cancel_scope.cancel()

        for place in range(len(clients)):
            nursery.start_soon(wait, place)
    return found[0]


async def test_a_fourth_connection_is_refused_with_connection_limit(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it), agent_client(it):
        async with agent_client(it):
            assert await refusal(it, it.agent.token) == "connection_limit"

        # The third one's place is free again once the relay has seen it leave.
        async def two_left() -> bool:
            return (await api.stats()).owners[it.agent.agent_id]["connections_now"] == 2

        await until(two_left)
        async with agent_client(it):
            pass
        assert (await api.stats()).owners[it.agent.agent_id]["connections_max"] == 3


async def refusal(it: Talk, token: str) -> str:
    """How an agent's authentication with this token is refused; the connection must end after it."""
    address = f"ws{it.url.removeprefix('http')}/ws/agent?agent_id={it.agent.agent_id}"
    async with open_websocket(address) as socket:
        client = Client(socket)
        await client.send(Auth(token, agent_id=it.agent.agent_id))
        answer = await client.receive()
        assert isinstance(answer, AuthError)
        assert (await client.lost()).code == 1008
        return answer.reason


async def test_a_wrong_token_is_invalid_for_good(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api):
        assert await refusal(it, "hsk_" + "x" * 40) == "invalid_token"
        assert (await api.stats()).total["auth_failures"] == 1


async def test_the_heartbeat_ends_a_client_that_answers_nothing(tmp_path: Path) -> None:
    async with talk(tmp_path, "--ping-seconds", "0.1") as (it, api), agent_client(it) as agent:
        assert (await agent.lost()).code == 1011
        assert (await api.stats()).owners[it.agent.agent_id]["silent_connections"] == 1


async def test_a_client_that_answers_lives_on(tmp_path: Path) -> None:
    # who says nothing for three of them is hung up on; on a busy machine a tenth of a second passes without a turn
    async with talk(tmp_path, "--ping-seconds", "0.5") as (it, _), agent_client(it) as agent:
        for _ in range(4):
            with waiting_for("the relay's ping", 5):
                assert await agent.socket.receive() == '{"type":"ping"}'
            await agent.socket.send('{"type":"pong"}')
        await agent.socket.send('{"type":"ping"}')
        received = ""
        with waiting_for("the relay's pong", 5):
            while received != '{"type":"pong"}':
                received = await agent.socket.receive()


async def test_nonsense_is_counted_and_the_connection_stays(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        for text in ("{", '{"type":"message.send"}', '{"type":"from.the.future"}'):
            await agent.socket.send(text)
        await say(agent, it, "still here")
        counts = (await api.stats()).owners[it.agent.agent_id]
        assert counts["malformed_frames.message.send"] == 1
        assert counts["malformed_frames.unknown"] == 1
        assert counts["unknown_frames"] == 1


async def test_a_stranger_to_a_conversation_may_not_speak_in_it(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api):
        one = await make_talk(url, api)
        other = await make_talk(url, api)
        async with agent_client(one) as agent:
            await agent.send(message(other, "intruding"))
            answer = await agent.receive()
            assert isinstance(answer, MessageError)
            assert answer.code == "NOT_A_MEMBER"


async def test_a_revoked_relation_is_told_and_nothing_passes_any_more(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), agent_client(it) as agent, person_client(it) as person:
        await api.set_relation(it.person.user_id, it.agent.agent_id, "revoked")
        revoked = await agent.receive()
        assert isinstance(revoked, RelationRevoked)
        assert revoked.payload.user_id == it.person.user_id
        await person.send(message(it, "hello?"))
        assert isinstance(await person.receive(), MessageError)


async def test_the_limit_of_five_a_second_is_counted_and_enforced_only_where_asked(tmp_path: Path) -> None:
    async with talk(tmp_path, "--enforce-rate") as (it, api), agent_client(it) as agent:
        for number in range(12):
            await agent.send(message(it, str(number)))
        answers = [await agent.receive() for _ in range(12)]
        refused = [answer for answer in answers if isinstance(answer, MessageError)]
        assert len(refused) in {5, 6}
        assert all(answer.code == "429" and 0 < (answer.retry_after or 0) <= 0.2 for answer in refused)
    async with talk(tmp_path) as (it, api), agent_client(it) as agent:
        for number in range(12):
            await agent.send(message(it, str(number)))
        assert all([isinstance(await agent.receive(), MessageAck) for _ in range(12)])
        assert (await api.stats()).owners[it.agent.agent_id]["over_rate"] >= 5


async def test_a_recalled_message_is_told_and_polled_no_more(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), agent_client(it) as agent, person_client(it) as person:
        ack = await say(person, it, "oops")
        assert isinstance(await agent.receive(), MessageNew)
        await person.send(MessageRecall(ack.message_id, it.conversation_id))
        recalled = MessageRecalled(ack.message_id, it.conversation_id, it.person.user_id)
        assert await person.receive() == recalled
        assert await agent.receive() == recalled
        assert await polled(it) == []


async def test_typing_reaches_the_person_with_its_sender(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), agent_client(it) as agent, person_client(it) as person:
        await agent.send(TypingStart(it.conversation_id))
        assert await person.receive() == TypingStart(it.conversation_id, it.agent.agent_id)


async def test_one_time_prekeys_are_given_once_each_and_the_agent_hears_when_they_run_low(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), RelayApi(it.url, it.agent.token) as own:
        path = f"/agents/{it.agent.agent_id}/keys/register"
        left = await own.call("POST", path, dict[str, int], device(it.agent.agent_id, 2))
        assert left == {"one_time_prekeys_left": 2}
        left = await own.call("POST", path, dict[str, int], device(it.agent.agent_id, 1, 3))
        assert left == {"one_time_prekeys_left": 3}
        async with agent_client(it) as agent:
            bundles = [await own.call("GET", f"/keys/agents/{it.agent.agent_id}", dict[str, object]) for _ in range(4)]
            assert await agent.receive() == PrekeysLow(2)
        assert [bundle.get("one_time_prekey") for bundle in bundles] == [
            {"id": 1, "public_key": "K1"},
            {"id": 2, "public_key": "K2"},
            {"id": 3, "public_key": "K3"},
            None,
        ]
        assert bundles[0]["signed_prekey"] == {"id": 3, "public_key": "PREKEY", "signature": "SIGNATURE"}
        assert bundles[0]["owner_id"] == it.agent.agent_id
        devices = await own.call("GET", f"/keys/users/{it.person.user_id}/devices", list[dict[str, object]])
        assert [entry["device_id"] for entry in devices] == ["phone"]


async def test_relations_are_listed_with_their_status(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), RelayApi(it.url, it.agent.token) as own:
        await api.set_relation(it.person.user_id, it.agent.agent_id, "suspended")
        path = f"/agents/{it.agent.agent_id}/relations"
        (relation,) = await own.call("GET", path, list[dict[str, object]])
        assert relation["status"] == "suspended"
        assert relation["user_id"] == it.person.user_id
        assert relation["conversation_id"] == it.conversation_id
        assert relation["public_key"] == "IDENTITY"


async def test_another_agents_token_opens_nothing(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api):
        one = await make_talk(url, api)
        other = await make_talk(url, api)
        async with RelayApi(url, other.agent.token) as intruder:
            with pytest.raises(ApiRefused) as refused:
                await intruder.call("GET", f"/agents/{one.agent.agent_id}/messages/poll", list[object])
        assert refused.value.status == 403
        async with RelayApi(url, "hsk_nobody") as nobody:
            with pytest.raises(ApiRefused) as refused:
                await nobody.call("GET", f"/agents/{one.agent.agent_id}/relations", list[object])
        assert (refused.value.status, refused.value.code) == (401, "INVALID_TOKEN")


async def test_a_killed_relay_with_a_state_file_comes_back_as_it_was(tmp_path: Path) -> None:
    options = ["--state", str(tmp_path / "relay.db")]
    async with relay_process(*options, log_path=tmp_path / "log") as (_, url), RelayApi(url) as api:
        before = await make_talk(url, api)
        async with person_client(before) as person:
            await say(person, before, "kept")
    async with relay_process(*options, log_path=tmp_path / "log") as (_, url):
        after = Talk(url, before.agent, before.person, before.conversation_id)
        assert [entry.encrypted_payload for entry in await polled(after)] == ["kept"]
        async with person_client(after) as person:
            assert (await say(person, after, "next")).conversation_seq == 2


async def test_a_client_that_stopped_reading_holds_up_nobody_else(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api):
        stuck = await make_talk(url, api)
        lively = await make_talk(url, api)
        async with (
            open_websocket(f"ws{url.removeprefix('http')}/ws/human", message_queue_size=1) as deaf,
            agent_client(stuck) as chatty,
            agent_client(lively) as agent,
            person_client(lively) as person,
        ):
            await deaf.send(f'{{"type":"auth","token":"{stuck.person.access_token}","device_id":"phone"}}')
            for _ in range(20):
                await say(chatty, stuck, "x" * 900_000)
            await say(agent, lively, "through")
            assert isinstance(await person.receive(), MessageNew)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused
def test_another_address_than_loopback_is_refused(host: str) -> None:
    with pytest.raises(NotLoopback, match="loopback only"):
        listen_on_loopback(host, 0)
