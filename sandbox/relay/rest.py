"""PROTOCOL §3 and the people's side of §6: keys, polling, relations, manifests, messages. Files are in `rest_files.py`."""

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from sandbox.relay.http import Page, Rest, body_of, integer
from sandbox.relay.records import (
    Agent,
    DeviceKeys,
    GroupKey,
    OneTimePrekey,
    RelationRecord,
    SignedPrekey,
)
from sandbox.relay.state import Refused, RelayState
from supervisor.relay.frames import GroupKeyRotated, PrekeysLow, Relation

MAX_PAGE = 200
DEFAULT_PAGE = 50
LOW_PREKEYS = 25


class DeviceBody(msgspec.Struct, frozen=True):
    device_id: str
    public_key: str
    signing_public_key: str
    signed_prekey: SignedPrekey
    one_time_prekeys: tuple[OneTimePrekey, ...] = ()
    replace: bool = False

    def keys_of(self, owner_id: str) -> DeviceKeys:
        return DeviceKeys(
            owner_id,
            self.device_id,
            self.public_key,
            self.signing_public_key,
            self.signed_prekey,
            self.one_time_prekeys,
        )


class GroupKeyBody(msgspec.Struct, frozen=True):
    key_version: int
    envelope: str


class ManifestBody(msgspec.Struct, frozen=True):
    capability_manifest: dict[str, object]


def relation_payload(state: RelayState, relation: RelationRecord) -> Relation:
    """The payload of the relation frames; the keys are absent until the person has registered a device."""
    person = state.people[relation.user_id]
    devices = state.devices_of(relation.user_id)
    return Relation(
        user_id=person.user_id,
        display_name=person.display_name,
        public_key=devices[0].public_key if devices else None,
        signing_public_key=devices[0].signing_public_key if devices else None,
        conversation_id=relation.conversation_id,
        scopes=relation.scopes,
        status=relation.status,
    )


class ProtocolRest(Rest):
    def routes(self) -> list[Route]:
        return [
            self.route("GET", "/health", self.health, faulty=False),
            self.route("POST", "/agents/{agent_id}/keys/register", self.register_agent_keys),
            self.route("GET", "/agents/{agent_id}/messages/poll", self.poll),
            self.route("GET", "/agents/{agent_id}/relations", self.relations),
            self.route("GET", "/agents/{agent_id}", self.agent),
            self.route("PATCH", "/agents/{agent_id}", self.change_agent),
            self.route("GET", "/keys/agents/{owner_id}", self.agent_bundle),
            self.route("GET", "/keys/users/{owner_id}/devices", self.devices),
            self.route("GET", "/keys/groups/{group_id}", self.group_key),
            self.route("PUT", "/keys/groups/{group_id}", self.put_group_key, faulty=False),
            self.route("POST", "/users/me/devices", self.register_device, faulty=False),
            self.route("GET", "/conversations/{conversation_id}/messages", self.messages, faulty=False),
        ]

    async def health(self, _request: Request) -> object:
        return {"status": "ok"}

    async def register_agent_keys(self, request: Request) -> object:
        agent = self.agent_of(request)
        body = await body_of(request, DeviceBody)
        if body.device_id != agent.agent_id:
            raise Refused(400, "INVALID_REQUEST", "an agent's device_id is its agent_id")
        keys = self.hub.state.register_device(body.keys_of(agent.agent_id), replace=body.replace)
        return {"one_time_prekeys_left": len(keys.one_time_prekeys)}

    async def register_device(self, request: Request) -> object:
        person = self.person_of(request)
        body = await body_of(request, DeviceBody)
        keys = self.hub.state.register_device(body.keys_of(person.user_id), replace=body.replace)
        return {"one_time_prekeys_left": len(keys.one_time_prekeys)}

    async def agent_bundle(self, request: Request) -> object:
        self.owner_of(request)
        owner_id = request.path_params["owner_id"]
        devices = self.hub.state.devices_of(owner_id)
        if not devices or owner_id not in self.hub.state.agents:
            raise Refused(404, "NOT_FOUND", "no such agent, or it has not registered its keys")
        return {"owner_id": owner_id, **self._bundle(devices[0])}

    async def devices(self, request: Request) -> object:
        self.owner_of(request)
        owner_id = request.path_params["owner_id"]
        if owner_id not in self.hub.state.people:
            raise Refused(404, "NOT_FOUND", "no such person")
        return [self._bundle(keys) for keys in self.hub.state.devices_of(owner_id)]

    def _bundle(self, keys: DeviceKeys) -> dict[str, object]:
        taken, left = self.hub.state.take_one_time_prekey(keys)
        if left < LOW_PREKEYS:
            self.hub.notify_agent(keys.owner_id, PrekeysLow(left))
        bundle: dict[str, object] = {
            "device_id": keys.device_id,
            "public_key": keys.public_key,
            "signing_public_key": keys.signing_public_key,
            "signed_prekey": keys.signed_prekey,
        }
        return bundle if taken is None else {**bundle, "one_time_prekey": taken}

    async def group_key(self, request: Request) -> object:
        self.owner_of(request)
        key = self.hub.state.group_key(request.path_params["group_id"])
        if key is None:
            raise Refused(404, "NOT_FOUND", "no such group, or it has no key")
        return key

    async def put_group_key(self, request: Request) -> object:
        person = self.person_of(request)
        body = await body_of(request, GroupKeyBody)
        group_id = request.path_params["group_id"]
        found = [
            conversation
            for conversation in self.hub.state.conversations.values()
            if conversation.group_id == group_id and person.user_id in conversation.members
        ]
        if not found:
            raise Refused(404, "NOT_FOUND", "no such group of this person")
        self.hub.state.put_group_key(GroupKey(group_id, body.key_version, body.envelope))
        rotated = GroupKeyRotated(group_id, body.key_version)
        for agent_id in found[0].agents:
            self.hub.notify_agent(agent_id, rotated)
        self.hub.to_people(found[0], rotated)
        return {"key_version": body.key_version}

    async def poll(self, request: Request) -> Page:
        agent = self.agent_of(request)
        limit = max(1, integer(request, "limit", DEFAULT_PAGE, MAX_PAGE))
        cursor = request.query_params.get("cursor") or None
        page, more = self.hub.state.poll(agent.agent_id, cursor, limit)
        self.hub.stats.count("polls", agent.agent_id)
        self.hub.stats.count("polled_messages", agent.agent_id, len(page))
        return [message.frame() for message in page], page[-1].message_id if more and page else None

    async def relations(self, request: Request) -> object:
        agent = self.agent_of(request)
        state = self.hub.state
        return [relation_payload(state, relation) for relation in state.relations_of(agent.agent_id)]

    async def agent(self, request: Request) -> object:
        return _agent_json(self.agent_of(request))

    async def change_agent(self, request: Request) -> object:
        agent = self.agent_of(request)
        body = await body_of(request, ManifestBody)
        return _agent_json(self.hub.state.set_manifest(agent, body.capability_manifest))

    async def messages(self, request: Request) -> Page:
        person = self.person_of(request)
        conversation = self.hub.state.conversations.get(request.path_params["conversation_id"])
        if conversation is None or person.user_id not in conversation.members:
            raise Refused(404, "NOT_FOUND", "no such conversation")
        after = integer(request, "after_seq", 0, 2**53)
        limit = max(1, integer(request, "limit", MAX_PAGE, MAX_PAGE))
        page = self.hub.state.messages_after(conversation.conversation_id, after, limit)
        following = str(page[-1].seq) if len(page) == limit else None
        return [message.frame() for message in page if message.recalled_by is None], following


def _agent_json(agent: Agent) -> dict[str, object]:
    return {
        "agent_id": agent.agent_id,
        "display_name": agent.display_name,
        "connection_mode": agent.connection_mode,
        "capability_manifest": agent.capability_manifest,
    }
