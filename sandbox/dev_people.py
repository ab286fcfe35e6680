"""Who talks to an agent that is being written, and where: alone with it, or in groups. Each person is a device with keys of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from sandbox.api import Group, RelayApi
from sandbox.background import background
from sandbox.chat import Place
from sandbox.group_people import GroupPerson, make_group_person

YOU = "you"


@dataclass(eq=False)
class _GroupOfPeople:
    group: Group
    place: Place
    members: list[GroupPerson] = field(default_factory=list)


class Company:
    """All who talk here. Made by `company`."""

    def __init__(self, relay_url: str, agent_id: str, nursery: trio.Nursery) -> None:
        self._relay_url = relay_url
        self._agent_id = agent_id
        self._nursery = nursery
        self._people: dict[str, GroupPerson] = {}
        self._alone: dict[str, Place] = {}
        self._groups: dict[str, _GroupOfPeople] = {}

    async def person(self, name: str) -> GroupPerson:
        """Returns who has this name, connected; makes them at the first time."""
        key = name.lower()
        if key not in self._people:
            made = await make_group_person(self._relay_url, name)
            self._people[key] = made
            self._nursery.start_soon(made.run)
            await made.transcript.until(lambda: made.connected)
        return self._people[key]

    async def alone(self, person: GroupPerson) -> Place:
        """Returns where a person is alone with the agent."""
        key = person.name.lower()
        if key not in self._alone:
            self._alone[key] = Place(await person.meet(self._agent_id), self._agent_id, person)
        return self._alone[key]

    async def group(self, name: str, person: GroupPerson) -> Place:
        """Returns the place of a group with the agent, of which the person is a member from now on.

        Who comes anew gets a new key of the group's, as at the platform: what was said before, they cannot read.
        """
        known = self._groups.get(name)
        if known is None:
            group = await person.make_group(self._agent_id)
            place = Place(group.conversation_id, self._agent_id, person, name=name)
            known = self._groups[name] = _GroupOfPeople(group, place)
        if person not in known.members:
            await self._let_in(known, person)
        return known.place

    async def close(self) -> None:
        """Ends what the people have open."""
        for person in self._people.values():
            await person.close()

    async def _let_in(self, known: _GroupOfPeople, person: GroupPerson) -> None:
        known.members.append(person)
        first, *others = known.members
        async with RelayApi(self._relay_url) as api:
            await api.set_members(known.group, tuple(one.account.user_id for one in known.members))
        if others:
            await person.join_group(known.group, self._agent_id)
        owners = [*(one.account.user_id for one in known.members), self._agent_id]
        await first.rotate_key(known.group, owners)
        for one in others:
            await one.fetch_key(known.group)


@asynccontextmanager
async def company(relay_url: str, agent_id: str) -> AsyncIterator[Company]:
    """Gives a company of nobody yet, whose people are connected as long as the body runs."""
    async with background() as nursery:
        made = Company(relay_url, agent_id, nursery)
        try:
            yield made
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await made.close()
