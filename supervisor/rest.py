"""The relay's REST side, as the agent uses it (PROTOCOL §3). Knows addresses and shapes, keeps no state, repeats nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast
from urllib.parse import quote

import httpx2
import msgspec
import trio

from supervisor.frames import FromRelay, MalformedFrame, Relation, UnknownFrame, frame_from_polled
from supervisor.secrets import Secret

TIMEOUT_SECONDS = 15.0
POLL_LIMIT = 100
MOST_RETRY_AFTER_SECONDS = 300.0
REFUSALS = frozenset((400, 403, 404, 410, 422))
NOT_JSON = "not a JSON object"

Json = dict[str, object]


class RestFailed(Exception):
    """A call did not succeed. `status` 0: no answer at all; `retry_after_seconds` with 429."""

    def __init__(self, call: str, status: int, code: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(f"{call}: {f'HTTP {status} {code}'.strip() if status else code}")
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_final(self) -> bool:
        """Whether asking again does not help (4xx but 408 and 429)."""
        return 400 <= self.status < 500 and self.status not in (408, 429)

    @property
    def is_refusal(self) -> bool:
        """Whether the relay itself says no to what was asked for: waiting does not help. Not to our token, and not by a proxy's page."""
        return self.status in REFUSALS and self.code != NOT_JSON


class Page(msgspec.Struct, frozen=True):
    """One polled page, oldest first; None in the place of a malformed frame. `last_id`: the cursor after it."""

    frames: list[FromRelay | UnknownFrame | None]
    last_id: str | None


class Rest:
    """Calls of one agent; made by `open_rest`."""

    def __init__(self, client: httpx2.AsyncClient, agent_id: str) -> None:
        self._client = client
        self._agent_id = agent_id

    async def register_keys(self, body: Json) -> int:
        """Publish our prekeys; how many one-time prekeys the relay holds afterwards."""
        data = await self._call("POST", f"/agents/{self._agent_id}/keys/register", body=body)
        left = data.get("one_time_prekeys_left") if isinstance(data, dict) else None
        return left if isinstance(left, int) else 0

    async def devices(self, user_id: str) -> list[Json]:
        """A person's devices with their bundles, as they stand in the answer."""
        data = await self._call("GET", f"/keys/users/{quote(user_id, safe='')}/devices")
        if not isinstance(data, list):
            raise RestFailed("devices", 200, "not a list")
        return [cast(Json, item) for item in data if isinstance(item, dict)]

    async def agent_keys(self, agent_id: str) -> Json:
        """Another agent's one bundle, as it stands in the answer."""
        data = await self._call("GET", f"/keys/agents/{quote(agent_id, safe='')}")
        return cast(Json, data) if isinstance(data, dict) else {}

    async def group_key(self, group_id: str) -> str:
        """The signed envelope with a group's current key; empty when the relay's answer has none."""
        data = await self._call("GET", f"/keys/groups/{quote(group_id, safe='')}")
        envelope = data.get("envelope") if isinstance(data, dict) else None
        return envelope if isinstance(envelope, str) else ""

    async def relations(self) -> tuple[Relation, ...]:
        """Everybody who may, or might once, talk to this agent."""
        return relations_from_json(await self._call("GET", f"/agents/{self._agent_id}/relations"))

    async def poll(self, cursor: str | None) -> Page:
        """The messages after `cursor`."""
        parameters: dict[str, str | int] = {"limit": POLL_LIMIT}
        if cursor is not None:
            parameters["cursor"] = cursor
        data = await self._call("GET", f"/agents/{self._agent_id}/messages/poll", parameters=parameters)
        if not isinstance(data, list):
            raise RestFailed("poll", 200, "not a list")
        ids = [entry.get("message_id") for entry in data if isinstance(entry, dict)]
        named = [message_id for message_id in ids if isinstance(message_id, str)]
        return Page([_frame_or_none(entry) for entry in data], named[-1] if named else None)

    async def _call(
        self, method: str, path: str, *, body: Json | None = None, parameters: dict[str, str | int] | None = None
    ) -> object:
        call = f"{method} {path}"
        try:
            with trio.fail_after(TIMEOUT_SECONDS):  # of the whole answer; httpx counts each read alone
                answer = await self._client.request(method, path, json=body, params=parameters)
        except httpx2.HTTPError as error:
            raise RestFailed(call, 0, type(error).__name__) from None
        except trio.TooSlowError:
            raise RestFailed(call, 0, f"no whole answer within {TIMEOUT_SECONDS:.0f} s") from None
        try:
            content = msgspec.json.decode(answer.content, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise RestFailed(call, answer.status_code, NOT_JSON) from None
        if answer.is_success and "data" in content:
            return content["data"]
        said = content.get("error")
        error_part: Json = said if isinstance(said, dict) else {}
        retry_after = bounded_seconds(error_part.get("retry_after", content.get("retry_after")))
        raise RestFailed(call, answer.status_code, str(error_part.get("code", ""))[:64], retry_after)


def relations_from_json(entries: object) -> tuple[Relation, ...]:
    """The `data` of `GET /agents/:id/relations`, already parsed from JSON; a malformed one hides no other.

    Raises RestFailed for what is no list.
    """
    if not isinstance(entries, list):
        raise RestFailed("relations", 200, "not a list")
    relations = []
    for entry in entries:
        with suppress(msgspec.ValidationError):
            relations.append(msgspec.convert(entry, type=Relation))
    return tuple(relations)


def bounded_seconds(value: object) -> float:
    """A `retry_after` as it may be believed: 0 to 300 s; 0 for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value <= 0:  # noqa: PLR0124 - NaN
        return 0.0
    return float(min(value, MOST_RETRY_AFTER_SECONDS))


def _frame_or_none(entry: object) -> FromRelay | UnknownFrame | None:
    try:
        return frame_from_polled(entry)
    except (MalformedFrame, RecursionError):
        return None


@asynccontextmanager
async def open_rest(base_url: str, agent_id: str, token: Secret[str]) -> AsyncIterator[Rest]:
    """A client with its connections, closed with the block."""
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield Rest(client, agent_id)
