"""`/sandbox/*` of PROTOCOL §6: making agents, people, relations and groups, arming faults, counting.

Open to whoever reaches the port, which is why the relay listens on loopback only.
"""

from collections.abc import Callable

import msgspec
import trio
from starlette.requests import Request
from starlette.routing import Route

from sandbox.relay.faults import FaultKind, FaultRequest, kinds_of
from sandbox.relay.http import Rest, body_of
from sandbox.relay.rest import relation_payload
from sandbox.relay.state import Refused
from supervisor.relay.frames import Relation, RelationEstablished, RelationRestored, RelationRevoked, RelationSuspended

ABNORMAL_RESTART = 1012

RelationFrame = RelationEstablished | RelationRestored | RelationRevoked | RelationSuspended


class NameBody(msgspec.Struct, frozen=True):
    display_name: str = "Sandbox"


class AgentBody(NameBody, frozen=True):
    """`agent_id`: of one that has keys and a store already."""

    agent_id: str | None = None


class RelationBody(msgspec.Struct, frozen=True):
    user_id: str
    agent_id: str
    scopes: tuple[str, ...] = ()


class RelationStatusBody(msgspec.Struct, frozen=True):
    """`status`: active, suspended or revoked."""

    user_id: str
    agent_id: str
    status: str


class GroupBody(msgspec.Struct, frozen=True):
    """`members`: people. `other_agents`: who answers in it besides `agent_id`."""

    members: tuple[str, ...]
    agent_id: str
    other_agents: tuple[str, ...] = ()


class MembersBody(msgspec.Struct, frozen=True):
    """`members`: the people of a group from now on."""

    conversation_id: str
    members: tuple[str, ...]


class SandboxRest(Rest):
    def routes(self) -> list[Route]:
        return [
            self.route("POST", "/sandbox/agents", self.add_agent, faulty=False),
            self.route("POST", "/sandbox/users", self.add_person, faulty=False),
            self.route("POST", "/sandbox/relations", self.relate, faulty=False),
            self.route("PUT", "/sandbox/relations", self.change_relation, faulty=False),
            self.route("POST", "/sandbox/groups", self.add_group, faulty=False),
            self.route("PUT", "/sandbox/groups", self.change_members, faulty=False),
            self.route("POST", "/sandbox/faults", self.arm, faulty=False),
            self.route("GET", "/sandbox/faults", self.armed, faulty=False),
            self.route("GET", "/sandbox/stats", self.stats, faulty=False),
        ]

    async def add_agent(self, request: Request) -> object:
        body = await body_of(request, AgentBody)
        agent = self.hub.state.add_agent(body.display_name, body.agent_id)
        return {"agent_id": agent.agent_id, "token": agent.token}

    async def add_person(self, request: Request) -> object:
        person = self.hub.state.add_person((await body_of(request, NameBody)).display_name)
        return {"user_id": person.user_id, "access_token": person.access_token}

    async def relate(self, request: Request) -> object:
        body = await body_of(request, RelationBody)
        relation = self.hub.state.relate(body.user_id, body.agent_id, body.scopes)
        payload = relation_payload(self.hub.state, relation)
        self.hub.notify_agent(relation.agent_id, RelationEstablished(payload))
        return {"conversation_id": relation.conversation_id}

    async def change_relation(self, request: Request) -> object:
        body = await body_of(request, RelationStatusBody)
        frames: dict[str, Callable[[Relation], RelationFrame]] = {
            "active": RelationRestored,
            "suspended": RelationSuspended,
            "revoked": RelationRevoked,
        }
        if body.status not in frames:
            raise Refused(400, "INVALID_REQUEST", f"status is one of {', '.join(frames)}")
        relation = self.hub.state.set_relation_status(body.user_id, body.agent_id, body.status)
        self.hub.notify_agent(body.agent_id, frames[body.status](relation_payload(self.hub.state, relation)))
        return {"status": relation.status}

    async def add_group(self, request: Request) -> object:
        body = await body_of(request, GroupBody)
        conversation = self.hub.state.add_group(body.agent_id, body.members, body.other_agents)
        return {"conversation_id": conversation.conversation_id, "group_id": conversation.group_id}

    async def change_members(self, request: Request) -> object:
        body = await body_of(request, MembersBody)
        conversation = self.hub.state.set_members(body.conversation_id, body.members)
        return {"members": conversation.members}

    async def arm(self, request: Request) -> object:
        body = await body_of(request, FaultRequest)
        try:
            kinds = kinds_of(body.kind)
        except ValueError:
            raise Refused(400, "INVALID_REQUEST", f"kind is one of {', '.join(FaultKind)}, 429, 500") from None
        disconnected = 0
        for kind in kinds:
            match kind:
                case FaultKind.DISCONNECT:
                    disconnected = self.hub.disconnect(body.owner_id, body.code)
                case FaultKind.RESTART:
                    disconnected = self.hub.disconnect_all(ABNORMAL_RESTART)
                case FaultKind.CLEAR:
                    self.hub.faults.clear()
                case _:
                    self.hub.faults.arm(kind, body, trio.current_time())
        self.hub.stats.count(f"faults.{body.kind}")
        return {"disconnected": disconnected}

    async def armed(self, _request: Request) -> object:
        return self.hub.faults.as_json(trio.current_time())

    async def stats(self, _request: Request) -> object:
        return {**self.hub.stats.as_json(), "messages_stored": len(self.hub.state.messages)}
