"""The relay's REST as the simulated people, the demo and tests call it: typed answers, or `ApiRefused`."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import IO, Self, TypeVar

import httpx2
import msgspec

from supervisor.relay.bodies import pieces

Answer = TypeVar("Answer")

TIMEOUT_SECONDS = 10.0
PIECE_BYTES = 256 * 1024
MOST_FILE_BYTES = 101 << 20


class ApiRefused(Exception):
    """An answer other than 2xx: its status and the error's code."""

    def __init__(self, status: int, code: str, retry_after: float | None) -> None:
        super().__init__(f"the relay answered {status} {code}")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class AgentAccount(msgspec.Struct, frozen=True):
    agent_id: str
    token: str

    def __repr__(self) -> str:
        return f"AgentAccount({self.agent_id})"


class PersonAccount(msgspec.Struct, frozen=True):
    user_id: str
    access_token: str

    def __repr__(self) -> str:
        return f"PersonAccount({self.user_id})"


class Group(msgspec.Struct, frozen=True):
    conversation_id: str
    group_id: str


class Stats(msgspec.Struct, frozen=True):
    """`GET /sandbox/stats`: counts in total and per owner."""

    total: dict[str, int]
    owners: dict[str, dict[str, int]]
    messages_stored: int


class _Conversation(msgspec.Struct, frozen=True):
    conversation_id: str


class _Disconnected(msgspec.Struct, frozen=True):
    disconnected: int


class _Error(msgspec.Struct, frozen=True):
    code: str = "UNKNOWN"
    retry_after: float | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class RelayApi:
    """One client for one caller: with a token, it acts as that agent or person."""

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Loopback never goes through a proxy, whatever the environment says. To read the machine's certificates takes 34 ms of CPU, and
        # each person has a client.
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            verify=base_url.startswith("https:"),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, answer: type[Answer], body: object = None) -> Answer:
        """The `data` of the answer as `answer`. Raises `ApiRefused`, or httpx2's errors where nothing answered."""
        content = msgspec.json.encode(body) if body is not None else None
        response = await self._client.request(method, path, content=content)
        if not response.is_success:
            raise _refused(response.status_code, response.content)
        data = msgspec.json.decode(response.content, type=dict[str, msgspec.Raw])["data"]
        return msgspec.json.decode(data, type=answer)

    async def put(self, path: str, source: IO[bytes], size: int) -> None:
        """Sends so many bytes of a file as the body. Raises as `call`."""

        async def read() -> AsyncIterator[bytes]:
            while piece := source.read(PIECE_BYTES):
                yield piece

        headers = {"content-length": str(size)}
        response = await self._client.request("PUT", path, content=read(), headers=headers)
        if not response.is_success:
            raise _refused(response.status_code, response.content)

    @asynccontextmanager
    async def fetch(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yields the body of an answer in pieces. Raises as `call`."""
        async with self._client.stream("GET", path) as response:
            if not response.is_success:
                raise _refused(response.status_code, await response.aread())
            async with aclosing(pieces(response, MOST_FILE_BYTES)) as parts:
                yield parts

    async def add_agent(self, display_name: str, agent_id: str | None = None) -> AgentAccount:
        """`agent_id`: of one that has keys and a store already; else a new one."""
        body = {"display_name": display_name, **({} if agent_id is None else {"agent_id": agent_id})}
        return await self.call("POST", "/sandbox/agents", AgentAccount, body)

    async def add_person(self, display_name: str) -> PersonAccount:
        return await self.call("POST", "/sandbox/users", PersonAccount, {"display_name": display_name})

    async def relate(self, user_id: str, agent_id: str, scopes: tuple[str, ...] = ()) -> str:
        """The conversation_id of the two."""
        body = {"user_id": user_id, "agent_id": agent_id, "scopes": scopes}
        return (await self.call("POST", "/sandbox/relations", _Conversation, body)).conversation_id

    async def set_relation(self, user_id: str, agent_id: str, status: str) -> None:
        body = {"user_id": user_id, "agent_id": agent_id, "status": status}
        await self.call("PUT", "/sandbox/relations", dict[str, object], body)

    async def add_group(self, agent_id: str, members: tuple[str, ...], other_agents: tuple[str, ...] = ()) -> Group:
        body = {"agent_id": agent_id, "members": members, "other_agents": other_agents}
        return await self.call("POST", "/sandbox/groups", Group, body)

    async def set_members(self, group: Group, members: tuple[str, ...]) -> None:
        """Who is in a group from now on; its key is theirs to make anew."""
        body = {"conversation_id": group.conversation_id, "members": members}
        await self.call("PUT", "/sandbox/groups", dict[str, object], body)

    async def fault(self, kind: str, **options: object) -> int:
        """Arms a fault (see `FaultRequest`); says how many connections it ended at once."""
        body = {"kind": kind, **options}
        return (await self.call("POST", "/sandbox/faults", _Disconnected, body)).disconnected

    async def stats(self) -> Stats:
        return await self.call("GET", "/sandbox/stats", Stats)


def _refused(status: int, content: bytes) -> ApiRefused:
    try:
        error = msgspec.json.decode(content, type=_Refusal).error
    except msgspec.DecodeError:
        error = _Error()
    return ApiRefused(status, error.code, error.retry_after)
