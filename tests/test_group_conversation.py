"""A group of two people and the agent, through real processes: its key changes hands and what follows is read, by members only."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.transport.client import open_redis
from crypto.envelope import V1_1
from crypto.errors import Reason
from sandbox.api import Group, RelayApi
from sandbox.group_people import GroupPerson, make_group_person
from sandbox.people import connected
from tests.waiting import waiting_for
from tests.world import World, agent, environment_of, world

WAIT_SECONDS = 20.0


@asynccontextmanager
async def group_of_two(tmp_path: Path) -> AsyncIterator[tuple[World, Group, GroupPerson, GroupPerson]]:
    """Ada, Ben and the agent in a group; neither of the two has a relation with the agent."""
    async with world(tmp_path, people=()) as w:
        ada, ben = [await make_group_person(w.relay_url, name) for name in ("Ada", "Ben")]
        async with connected(ada, ben):
            yield w, await ada.make_group(agent_of(w), ben), ada, ben


def agent_of(w: World) -> str:
    return w.environment["HASHEE_AGENT_ID"]


def to_agent(w: World, text: str) -> str:
    return f"@<U:{agent_of(w)}> {text}"


def ids(w: World, *people: GroupPerson) -> list[str]:
    return [*(one.account.user_id for one in people), agent_of(w)]


async def both_hear(group: Group, text: str, *people: GroupPerson) -> None:
    with waiting_for(f"{text!r} to be heard by everybody", WAIT_SECONDS):
        for one in people:
            transcript = one.transcript
            await transcript.until(lambda transcript=transcript: text in transcript.heard(group.conversation_id))  # type: ignore[misc]


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


async def test_a_group_talks_with_the_agent_over_rotations_and_without_who_was_removed(tmp_path: Path) -> None:
    async with group_of_two(tmp_path) as (w, group, ada, ben):
        conversation = group.conversation_id
        await ada.rotate_key(group, ids(w, ada, ben))
        await ada.say(conversation, to_agent(w, "one"))
        await both_hear(group, "echo: one", ada, ben)
        await ben.say(conversation, to_agent(w, "two"))
        await both_hear(group, "echo: two", ada, ben)

        await ben.rotate_key(group, ids(w, ada, ben))
        await w.until(lambda: (w.directory / "up.log").read_text(encoding="utf-8").count("group: key accepted") == 2)
        await ben.say(conversation, to_agent(w, "three"))
        await both_hear(group, "echo: three", ada, ben)
        assert (ada.versions, ben.versions) == ({V1_1}, {V1_1})
        assert not ada.unreadable
        assert not ben.unreadable

        key = await ada.rotate_key(group, ids(w, ada))
        await ada.say(conversation, to_agent(w, "without Ben"))
        await both_hear(group, "echo: without Ben", ada)
        with waiting_for(
            "what is not for him to reach him, twice", WAIT_SECONDS
        ):  # neither what she said nor the answer: the new key has no wrap for him
            await ben.transcript.until(lambda: ben.unreadable == {Reason.NOT_FOR_US: 2})
        ben.take_key(group, key, ada.account.user_id)  # whoever gave it to him: he is no member of this version
        await ben.say(conversation, to_agent(w, "still here"))
        await ada.say(conversation, to_agent(w, "last"))
        await both_hear(group, "echo: last", ada)
        assert "echo: still here" not in ada.transcript.heard(conversation)
        assert await quarantine_reasons(w) == [Reason.NO_GRANT]
        await ada.say(conversation, "between us")
        await w.until(lambda: 'frame_dropped_total{reason="not_mentioned"} 1.0' in w.page("/metrics"))
        assert 'hashee_message_inbound_total{conv_type="group",payload_type="text"} 6.0' in w.page("/metrics")


async def test_an_answer_grows_before_the_eyes_of_everybody_in_the_group(tmp_path: Path) -> None:
    async with group_of_two(tmp_path) as (w, group, ada, ben):
        await ada.rotate_key(group, ids(w, ada, ben))
        await ada.say(group.conversation_id, to_agent(w, "hello"))
        await both_hear(group, to_agent(w, "hello"), ben)
        await ada.say(group.conversation_id, to_agent(w, "/stream slowly it grows word by word"))
        await both_hear(group, "echo: slowly it grows word by word", ada, ben)
        for one in (ada, ben):
            assert one.counts["streams"] == 1
            assert one.counts["deltas"] > 1
            assert not one.unreadable


async def test_two_agents_in_a_group_answer_each_other_three_times_and_no_more(tmp_path: Path) -> None:
    """PROTOCOL §4: an answer to an agent is a hop more, and what has three goes to no handler."""
    overhearing = {"HASHEE_HANDLER": "tests.handlers:overhearing"}
    async with world(tmp_path, people=(), **overhearing) as w, RelayApi(w.relay_url) as api:
        second = await api.add_agent("Echo too")
        place = tmp_path / "second"
        place.mkdir()
        environment = environment_of(place, w.relay_url, second.agent_id, second.token, **overhearing)
        other = World(place, w.relay_url, api, environment, [])
        ada = await make_group_person(w.relay_url, "Ada")
        async with agent(other), connected(ada):
            await other.until_ready()
            group = await ada.make_group(agent_of(w), other_agents=(second.agent_id,))
            await ada.rotate_key(group, [*ids(w, ada), second.agent_id])
            await ada.say(group.conversation_id, "hello")
            for one in (w, other):
                await one.until(lambda one=one: 'frame_dropped_total{reason="hops"} 1.0' in one.page("/metrics"))  # type: ignore[misc]
            with waiting_for("eight echoes in the group", WAIT_SECONDS):
                await ada.transcript.until(lambda: len(ada.transcript.heard(group.conversation_id)) >= 8)
            heard = Counter(ada.transcript.heard(group.conversation_id))
            assert heard == {"echo: " * depth + "hello": 2 for depth in (1, 2, 3, 4)}
