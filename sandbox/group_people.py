"""Simulated people who talk in groups too (PROTOCOL §5.6): they make and rotate keys, and write and read under them.

In a conversation that is no group they are the people of `people.py`. A member writes under the highest version that it knows and
asks the relay for the key when it cannot read a message; it trusts a key no further than the agent does.
"""

import os
from collections.abc import Sequence

from crypto.envelope import V1_1, Envelope, Expected, check_recipient_of_person, parse_envelope, verify_signature
from crypto.errors import Reason, Unreadable
from crypto.groups import (
    GroupKey,
    GroupKeys,
    accept_group_key,
    open_group_key,
    open_group_message,
    read_group_key_envelope,
    seal_group_key,
    seal_group_message,
)
from crypto.identity import IdentityKeys, LocalDevice, PublicIdentity
from crypto.prekeys import bundle_from_json
from crypto.primitives import KEY_BYTES
from sandbox.api import ApiRefused, Group, PersonAccount, RelayApi
from sandbox.device_state import DeviceState, Received
from sandbox.people import Person
from sandbox.ulid import new_ulid
from supervisor.relay.frames import MessageNew


class GroupDeviceState(DeviceState):
    """A device's keys, with those of its groups by conversation."""

    def __init__(self, device: LocalDevice) -> None:
        super().__init__(device)
        self.groups: dict[str, GroupKeys] = {}

    def pinned(self, owner_id: str) -> PublicIdentity:
        """The pair under which an owner is known. Raises `Unreadable`."""
        pinned = self._pins.get(owner_id)
        if pinned is None:
            raise Unreadable(Reason.UNKNOWN_SENDER)
        return pinned

    def verified(self, encrypted_payload: str, expected: Expected) -> Envelope:
        """As for any device; in a group it has to be v1.1, addressed to the group."""
        keys = self.groups.get(expected.conversation_id)
        if keys is None:
            return super().verified(encrypted_payload, expected)
        envelope = parse_envelope(encrypted_payload, expected)
        if envelope.v != V1_1:
            raise Unreadable(Reason.UNSUPPORTED_VERSION)
        if envelope.to != keys.group_id:
            raise Unreadable(Reason.NOT_FOR_US)
        check_recipient_of_person(envelope, self.device, keys.group_id)
        verify_signature(envelope, self.pinned(envelope.sender_id))
        return envelope

    def open(self, encrypted_payload: str, expected: Expected) -> Received:
        """Opens an envelope once, in a group under its key. Raises `Unreadable`, having changed nothing."""
        keys = self.groups.get(expected.conversation_id)
        if keys is None:
            return super().open(encrypted_payload, expected)
        envelope = self.verified(encrypted_payload, expected)
        if envelope.replay_id in self._seen:
            raise Unreadable(Reason.DUPLICATE)
        received = Received(envelope, open_group_message(envelope, keys))
        self._seen.add(envelope.replay_id)
        return received


class GroupPerson(Person):
    """Made by `make_group_person`."""

    def __init__(self, url: str, name: str, account: PersonAccount, identity: IdentityKeys) -> None:
        super().__init__(url, name, account, identity)
        self._state: GroupDeviceState = GroupDeviceState(self.device)

    # --- groups and their keys ---

    async def make_group(self, agent_id: str, *others: "GroupPerson", other_agents: tuple[str, ...] = ()) -> Group:
        """A new group with an agent and others, all of whom take part in it from now on; still without a key."""
        people = (self, *others)
        group = await self._api.add_group(agent_id, tuple(one.account.user_id for one in people), other_agents)
        for one in people:
            await one.join_group(group, agent_id)
        return group

    async def join_group(self, group: Group, agent_id: str) -> None:
        """Takes part in a group that exists."""
        self.join(group.conversation_id, agent_id)
        self._state.groups[group.conversation_id] = GroupKeys(group.group_id)
        await self._pin(agent_id)

    async def rotate_key(self, group: Group, members: Sequence[str]) -> GroupKey:
        """Makes the next version for these owners (people and agents, itself among them) and hands it to the relay."""
        keys = self._state.groups[group.conversation_id]
        version = 1 if keys.current is None else keys.current.key_version + 1
        key = GroupKey(group.group_id, version, os.urandom(KEY_BYTES), tuple(members))
        for owner_id in members:
            await self._pin(owner_id)
        sealed = seal_group_key(
            self.device,
            key,
            conversation_id=group.conversation_id,
            client_message_id=new_ulid(),
            recipients={owner_id: self._pair_of(owner_id).agreement_key for owner_id in members},
            random=os.urandom,
        )
        body = {"key_version": version, "envelope": sealed}
        await self._api.call("PUT", f"/keys/groups/{group.group_id}", dict[str, object], body)
        self.take_key(group, key, self.account.user_id)
        return key

    async def fetch_key(self, group: Group) -> None:
        """The relay's key of a group, if it may be accepted. Raises `ApiRefused`, `Unreadable`."""
        answer = await self._api.call("GET", f"/keys/groups/{group.group_id}", dict[str, object])
        envelope = read_group_key_envelope(str(answer["envelope"]), group.group_id)
        await self._pin(envelope.sender_id)
        verify_signature(envelope, self._pair_of(envelope.sender_id))
        self.take_key(group, open_group_key(envelope, self.device), envelope.sender_id)

    def take_key(self, group: Group, key: GroupKey, maker_id: str) -> None:
        """Keeps a version. Raises `Unreadable`."""
        keys = self._state.groups[group.conversation_id]
        self._state.groups[group.conversation_id] = accept_group_key(keys, key, maker_id)

    def _pair_of(self, owner_id: str) -> PublicIdentity:
        return self.identity.public if owner_id == self.account.user_id else self._state.pinned(owner_id)

    async def _pin(self, owner_id: str) -> None:
        """Pins at first sight what the relay shows of a person, or of an agent."""
        if owner_id == self.account.user_id or self._state.knows(owner_id):
            return
        try:
            listed = await self._api.call("GET", f"/keys/users/{owner_id}/devices", list[dict[str, object]])
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            listed = [await self._api.call("GET", f"/keys/agents/{owner_id}", dict[str, object])]
        for entry in listed[:1]:
            self._state.pin(bundle_from_json(entry, owner_id))

    # --- talking and hearing ---

    async def _seal(self, conversation_id: str, client_message_id: str, payload: dict[str, object]) -> str:
        keys = self._state.groups.get(conversation_id)
        if keys is None:
            return await super()._seal(conversation_id, client_message_id, payload)
        return seal_group_message(
            self.device,
            keys,
            conversation_id=conversation_id,
            client_message_id=client_message_id,
            payload=payload,
            random=os.urandom,
        )

    async def _open(self, frame: MessageNew) -> Received | None:
        keys = self._state.groups.get(frame.conversation_id)
        if keys is None:
            return await super()._open(frame)
        expected = Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
        try:
            await self._pin(frame.sender_id)
            try:
                return self._state.open(frame.encrypted_payload, expected)
            except Unreadable as failure:
                if failure.reason is not Reason.UNKNOWN_GROUP_KEY:
                    raise
            await self.fetch_key(Group(frame.conversation_id, keys.group_id))
            return self._state.open(frame.encrypted_payload, expected)
        except Unreadable as failure:
            self.counts["duplicates"] += failure.reason is Reason.DUPLICATE
            if failure.reason is not Reason.DUPLICATE:
                self.unreadable[failure.reason] += 1
            self.transcript.notify()
            return None


async def make_group_person(url: str, name: str) -> GroupPerson:
    """A new person with fresh keys, registered but not connected."""
    async with RelayApi(url) as api:
        account = await api.add_person(name)
    made = GroupPerson(url, name, account, IdentityKeys.generate(os.urandom))
    await made.register()
    return made
