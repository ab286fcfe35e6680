"""The relay's REST side, as the agent uses it (PROTOCOL §3). Knows addresses and shapes, keeps no state, repeats nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx2
import msgspec
import trio

from supervisor.answers import NotTaken, Text, entries_of, members_of, read_as, value_of
from supervisor.frames import FromRelay, MalformedFrame, Relation, UnknownFrame, decode_from_relay
from supervisor.ids import id_in
from supervisor.secrets import Secret

TIMEOUT_SECONDS = 15.0
POLL_LIMIT = 100
MOST_RETRY_AFTER_SECONDS = 300.0
REFUSALS = frozenset((400, 403, 404, 410, 422))
NOT_JSON = "not a JSON object"
NOT_A_LIST = "not a list"
MOST_DEVICES = 50
"""Entries of a person's list that are looked at; five count (supervisor/owners.py)."""

MOST_PREKEYS_TOLD = 1_000_000
"""More than this the relay does not hold of ours, whatever it says."""

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
        """Publish our prekeys; how many one-time prekeys the relay holds afterwards, as far as that may be believed."""
        left = _object(await self._call("POST", f"/agents/{self._agent_id}/keys/register", body=body)).get(
            "one_time_prekeys_left"
        )
        return min(max(left, 0), MOST_PREKEYS_TOLD) if isinstance(left, int) and not isinstance(left, bool) else 0

    async def devices(self, user_id: str) -> list[Json]:
        """A person's devices with their bundles, as they stand in the answer; one without an id is left out."""
        data = await self._call("GET", f"/keys/users/{quote(user_id, safe='')}/devices")
        listed = _entries("devices", data)[:MOST_DEVICES]
        return [_object(entry) for entry in listed if id_in(entry, "device_id")]

    async def agent_keys(self, agent_id: str) -> Json:
        """Another agent's one bundle, as it stands in the answer; empty when it names no device."""
        data = await self._call("GET", f"/keys/agents/{quote(agent_id, safe='')}")
        return _object(data) if id_in(data, "device_id") else {}

    async def group_key(self, group_id: str) -> str:
        """The signed envelope with a group's current key; empty when the relay's answer has none."""
        envelope = _object(await self._call("GET", f"/keys/groups/{quote(group_id, safe='')}")).get("envelope")
        return envelope if isinstance(envelope, str) else ""

    async def relations(self) -> tuple[Relation, ...]:
        """Everybody who may, or might once, talk to this agent."""
        return relations_from(await self._call("GET", f"/agents/{self._agent_id}/relations"))

    async def poll(self, cursor: str | None) -> Page:
        """The messages after `cursor`."""
        parameters: dict[str, str | int] = {"limit": POLL_LIMIT}
        if cursor is not None:
            parameters["cursor"] = cursor
        data = await self._call("GET", f"/agents/{self._agent_id}/messages/poll", parameters=parameters)
        entries = _entries("poll", data)
        named = (id_in(entry, "message_id") for entry in reversed(entries))
        return Page([_frame_or_none(entry) for entry in entries], next((found for found in named if found), None))

    async def _call(
        self, method: str, path: str, *, body: Json | None = None, parameters: dict[str, str | int] | None = None
    ) -> Text:
        """The `data` of the answer, unread. Raises RestFailed, whatever went wrong."""
        call = f"{method} {path}"
        try:
            with trio.fail_after(TIMEOUT_SECONDS):  # of the whole answer; httpx counts each read alone
                answer = await self._client.request(method, path, json=body, params=parameters)
        except trio.TooSlowError:
            raise RestFailed(call, 0, f"no whole answer within {TIMEOUT_SECONDS:.0f} s") from None
        except Exception as error:  # noqa: BLE001 - of httpx, its transport, TLS, or an address that is none: no answer
            raise RestFailed(call, 0, type(error).__name__) from None
        try:
            content = members_of(answer.content)
        except NotTaken:
            raise RestFailed(call, answer.status_code, NOT_JSON) from None
        if answer.is_success and "data" in content:
            return content["data"]
        error_part = _object(content.get("error"))
        retry_after = bounded_seconds(error_part.get("retry_after", value_of(content.get("retry_after"))))
        raise RestFailed(call, answer.status_code, _code(error_part.get("code")), retry_after)


def relations_from(data: Text) -> tuple[Relation, ...]:
    """The `data` of `GET /agents/:id/relations`; a malformed entry hides no other. Raises RestFailed for what is no list."""
    relations = (read_as(Relation, entry) for entry in _entries("relations", data))
    return tuple(relation for relation in relations if relation is not None)


def bounded_seconds(value: object) -> float:
    """A `retry_after` as it may be believed: 0 to 300 s; 0 for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value <= 0:  # noqa: PLR0124 - NaN
        return 0.0
    return float(min(value, MOST_RETRY_AFTER_SECONDS))


def _entries(call: str, data: Text) -> list[Text]:
    try:
        return entries_of(data)
    except NotTaken:
        raise RestFailed(call, 200, NOT_A_LIST) from None


def _object(text: Text | None) -> Json:
    """The members of an object that can be read; none for what is no object."""
    try:
        members = {} if text is None else members_of(text)
    except NotTaken:
        return {}
    return {name: value_of(member) for name, member in members.items()}


def _code(said: object) -> str:
    """What the relay calls an error, as it may stand in a log."""
    return "".join(character for character in said[:64] if character.isprintable()) if isinstance(said, str) else ""


def _frame_or_none(entry: Text) -> FromRelay | UnknownFrame | None:
    try:
        return decode_from_relay(entry)
    except MalformedFrame:
        return None


@asynccontextmanager
async def open_rest(base_url: str, agent_id: str, token: Secret[str]) -> AsyncIterator[Rest]:
    """A client with its connections, closed with the block."""
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield Rest(client, agent_id)
