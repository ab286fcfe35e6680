"""Who talks in `hashee-agent dev`: people with keys of their own, and groups that others come into. With a relay, and no agent's process."""

from pathlib import Path

import pytest

from sandbox.api import ApiRefused, Group, RelayApi
from sandbox.dev_people import company
from sandbox.typed import seconds_in, without_mark
from tests.sandbox.relay import relay
from tests.sandbox.simulated_agent import simulated_agent
from tests.waiting import waiting_for


async def test_who_comes_into_a_group_reads_what_is_said_from_then_on(tmp_path: Path) -> None:
    async with (
        relay(tmp_path) as (url, _),
        simulated_agent(url) as agent,
        company(url, agent.account.agent_id) as people,
    ):
        with waiting_for("two people to talk in a group", 20):
            ann = await people.person("ann")
            assert await people.person("Ann") is ann
            alone, lunch = await people.alone(ann), await people.group("lunch", ann)
            assert (alone.in_words, lunch.in_words) == ("alone with the agent", "in the group lunch")
            ben = await people.person("ben")
            assert await people.group("lunch", ben) is lunch
            assert await people.group("dinner", ben) is not lunch
            await ann.say(lunch.conversation_id, "hello ben")
            await ben.transcript.until(lambda: "hello ben" in ben.transcript.heard(lunch.conversation_id))
            await ben.say(lunch.conversation_id, "hello ann")
            await ann.transcript.until(lambda: "hello ann" in ann.transcript.heard(lunch.conversation_id))
        assert not ann.unreadable
        assert not ben.unreadable
        [line] = [one for one in ann.transcript.lines(lunch.conversation_id) if one.direction == "in"]
        assert line.sender_id == ben.account.user_id


async def test_only_a_group_of_people_that_there_are_gets_other_members(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent, RelayApi(url) as api:
        ann = await api.add_person("Ann")
        alone = await api.relate(ann.user_id, agent.account.agent_id)
        group = await api.add_group(agent.account.agent_id, (ann.user_id,))
        for which, members in ((Group(alone, ""), (ann.user_id,)), (group, ("nobody",))):
            with pytest.raises(ApiRefused, match="404"):
                await api.set_members(which, members)


@pytest.mark.parametrize(
    ("text", "seconds"), [("+10m", 600), ("5s", 5), ("2 h", 7200), ("+1d", 86400), ("soon", None), ("", None)]
)
def test_a_time_is_read_as_it_is_typed(text: str, seconds: int | None) -> None:
    assert seconds_in(text) == seconds
    assert without_mark(f"//{text}") == f"/{text}"
