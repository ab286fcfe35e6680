"""The relay's REST side, as the agent uses it (PROTOCOL §3). Knows addresses and shapes, repeats nothing.

Every answer is read in pieces and bounded; of a list every entry is decoded alone, so that a bad one spoils no other.
"""

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import quote

import httpx2
import msgspec
import trio

from host.reasons import why
from supervisor.relay.answers import NotTaken, Text, members_of, read_as, value_of
from supervisor.relay.bodies import BodyRefused, pieces, whole
from supervisor.relay.frames import FromRelay, MalformedFrame, Relation, UnknownFrame, decode_from_relay
from supervisor.relay.ids import id_in
from supervisor.relay.listing import Limits, Listing
from supervisor.relay.patience import in_turn
from supervisor.relay.related import essence_of
from supervisor.settings.secrets import Secret
from supervisor.settings.way import DIRECTLY, Proxy, Way

TIMEOUT_SECONDS = 15.0
"""For a whole answer, body included."""

POLL_LIMIT = 100
"""How many messages a poll asks for (PROTOCOL §3)."""

PAGE_BYTES = 8 << 20
"""What is taken of a page at once, unless the memory limit leaves less or more (host/budgets.py); what is behind it is asked for next."""

SMALL_BYTES = 64 << 10
MANIFEST_BYTES = 1 << 20
"""An error, a bundle, a relation: some hundred bytes each, and whatever a proxy has to say."""

ENVELOPE_BYTES = 5 << 18
"""The largest string that is read: an envelope of 1 MiB (PROTOCOL §5), and what JSON escapes in it."""

SMALL_ENTRY = Limits(entry_bytes=SMALL_BYTES, string_bytes=SMALL_BYTES)
MESSAGE_ENTRY = Limits(entry_bytes=ENVELOPE_BYTES + SMALL_BYTES, string_bytes=ENVELOPE_BYTES)

POLL_BYTES = 256 << 20
"""What is looked through for the messages of a page: of one that is far too large only its ids are kept, so that polling comes past it."""

DEVICES_BYTES = 256 << 10
"""A person has at most 5 devices (PROTOCOL §5). A longer list is a failed call: a part of it would leave devices out."""

RELATIONS_BYTES = 64 << 20
"""More than 100,000 people."""

ASKED_AT_ONCE = 8
"""How many calls that a message waits for run at once: their answers weigh some 10 MiB at most in all."""

MOST_CONNECTIONS = 2 * ASKED_AT_ONCE
"""Twice as many, so that polling, relations and prekeys always find a connection."""

MOST_RETRY_AFTER_SECONDS = 300.0
"""Whatever the relay says: a slip of a number must not silence an agent for a day."""

REFUSALS = frozenset((400, 403, 404, 410, 422))
"""The HTTP statuses that say no to what was asked for, and not to us (401), to now (408, 429) or to everything (5xx)."""

NOT_JSON = "not a JSON object"
NOT_A_LIST = "not a list"
MOST_DEVICES = 50
"""Entries of a person's list that are looked at; five count (supervisor/peers/owners.py)."""

NO_STATUS = "unreadable"
"""Of a relation whose status is told as no text: it is none of those that we know."""

MOST_PREKEYS_TOLD = 1_000_000
"""More than this the relay does not hold of ours, whatever it says."""

Json = dict[str, object]
Parameters = dict[str, str | int]


class RestFailed(Exception):
    """Raised when a call did not succeed. `status` 0: no answer at all. `retry_after_seconds`: how long the relay asks us to wait."""

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
        """Whether the relay itself says no to what was asked for, so that waiting does not help; a proxy's page is no such word."""
        return self.status in REFUSALS and self.code != NOT_JSON


def pause_after(error: Exception, at_least: float) -> float:
    """Returns the seconds until what failed is tried again: as long as the relay asks us to wait, and `at_least`."""
    return max(at_least, error.retry_after_seconds) if isinstance(error, RestFailed) else at_least


class Page(msgspec.Struct, frozen=True):
    """One polled page, oldest first; None in the place of a malformed frame. `last_id`: the cursor after it."""

    frames: list[FromRelay | UnknownFrame | None]
    last_id: str | None


class _Answer(msgspec.Struct, frozen=True):
    data: msgspec.Raw


class _GroupKey(msgspec.Struct, frozen=True):
    envelope: str


class Rest:
    """Calls of one agent; made by `open_rest`."""

    def __init__(self, client: httpx2.AsyncClient, agent_id: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """`timeout_seconds`: a call's whole answer has come by then."""
        self._timeout_seconds = timeout_seconds
        self._client = client
        self._agent_id = agent_id
        self._page_limit = POLL_LIMIT
        self.page_bytes = PAGE_BYTES
        self._asked = trio.Semaphore(ASKED_AT_ONCE)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        with in_turn():
            await self._asked.acquire()
        try:
            yield
        finally:
            self._asked.release()

    async def register_keys(self, body: Json) -> int:
        """Publishes our prekeys. Returns how many one-time prekeys the relay says it holds then, 0 to MOST_PREKEYS_TOLD."""
        data = await self._data("POST", f"/agents/{self._agent_id}/keys/register", SMALL_BYTES, body=body)
        left = _object(data).get("one_time_prekeys_left")
        return min(max(left, 0), MOST_PREKEYS_TOLD) if isinstance(left, int) and not isinstance(left, bool) else 0

    async def manifest(self) -> Json:
        """Returns the capability manifest that the relay has of this agent; empty if it has none."""
        async with self._turn():
            data = await self._data("GET", f"/agents/{self._agent_id}", MANIFEST_BYTES)
        found = _object(data).get("capability_manifest")
        return found if isinstance(found, dict) else {}

    async def set_manifest(self, manifest: Json) -> None:
        """Registers the capability manifest of this agent."""
        async with self._turn():
            body: Json = {"capability_manifest": manifest}
            await self._data("PATCH", f"/agents/{self._agent_id}", MANIFEST_BYTES, body=body)

    async def devices(self, user_id: str) -> list[Json]:
        """Returns a person's devices with their bundles, as they stand in the answer; one without an id is left out."""
        path = f"/keys/users/{quote(user_id, safe='')}/devices"
        async with self._turn(), self._listed(path, SMALL_ENTRY, DEVICES_BYTES) as entries:
            listed = [entry async for entry in entries][:MOST_DEVICES]
        return [_object(entry) for entry in listed if id_in(entry, "device_id")]

    async def agent_keys(self, agent_id: str) -> Json:
        """Returns another agent's one bundle, as it stands in the answer; empty when it names no device."""
        async with self._turn():
            data = await self._data("GET", f"/keys/agents/{quote(agent_id, safe='')}", SMALL_BYTES)
        return _object(data) if id_in(data, "device_id") else {}

    async def group_key(self, group_id: str) -> str:
        """Returns the signed envelope with a group's current key; empty when the relay's answer has none."""
        async with self._turn():
            data = await self._data("GET", f"/keys/groups/{quote(group_id, safe='')}", ENVELOPE_BYTES + SMALL_BYTES)
        found = read_as(_GroupKey, data)
        return "" if found is None else found.envelope

    async def relations(self, note: Callable[[Relation], Awaitable[None]]) -> None:
        """Calls `note` with everybody who may, or once might, talk to this agent, one by one while the answer is read: none is kept.

        A malformed entry hides no other. What `note` raises is passed on as it is.
        """
        failure: Exception | None = None
        async with self._listed(f"/agents/{self._agent_id}/relations", SMALL_ENTRY, RELATIONS_BYTES) as entries:
            async for entry in entries:
                relation = _relation_in(entry)
                if relation is None:
                    continue
                try:
                    await note(essence_of(relation))
                except Exception as error:  # noqa: BLE001 - raised below: in here it would be taken for one of the call
                    failure = error
                    break
        if failure is not None:
            raise failure

    async def poll(self, cursor: str | None) -> Page:
        """Returns the messages after `cursor`, as many as may be held at once. After a page that was not taken whole it asks for fewer."""
        limit = self._page_limit
        parameters: Parameters = {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}
        frames, last_id, taken_bytes = list[FromRelay | UnknownFrame | None](), None, 0
        path = f"/agents/{self._agent_id}/messages/poll"
        async with self._listed(path, MESSAGE_ENTRY, POLL_BYTES, parameters) as entries:
            async for entry in entries:
                if taken_bytes >= self.page_bytes or len(frames) >= limit:
                    break
                frames.append(_frame_or_none(entry))
                last_id = id_in(entry, "message_id") or last_id
                taken_bytes += len(entry)
        self._page_limit = max(1, len(frames)) if taken_bytes >= self.page_bytes else min(POLL_LIMIT, 2 * limit)
        return Page(frames, last_id)

    async def _data(self, method: str, path: str, most_bytes: int, *, body: Json | None = None) -> Text:
        """Returns the `data` of an answer, unread. Raises RestFailed."""
        async with self._answered(method, path, body=body) as (answer, _):
            said = read_as(_Answer, await whole(answer, most_bytes))
            if said is None:
                raise BodyRefused(NOT_JSON)
            return said.data

    @asynccontextmanager
    async def _listed(
        self, path: str, limits: Limits, most_bytes: int, parameters: Parameters | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yields an iterator over the entries of a list, each as it stands there, while the answer is read. Raises RestFailed."""
        async with (
            self._answered("GET", path, parameters=parameters) as (answer, within),
            aclosing(_entries(answer, limits, most_bytes, within)) as entries,
        ):
            yield entries

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, *, body: Json | None = None, parameters: Parameters | None = None
    ) -> AsyncIterator[tuple[httpx2.Response, trio.CancelScope]]:
        """Yields a successful answer, whose body is to be read in the block, and the scope that bounds it in time.

        Raises RestFailed for any other and for whatever fails meanwhile.
        """
        call, status = f"{method} {path}", 0
        try:
            with trio.fail_after(self._timeout_seconds) as within:  # of the whole answer; httpx counts each read alone
                async with self._client.stream(method, path, json=body, params=parameters) as answer:
                    status = answer.status_code
                    await _check(call, answer)
                    yield answer, within
        except RestFailed:
            raise
        except BodyRefused as error:
            raise RestFailed(call, status, str(error)) from None
        except trio.TooSlowError:
            raise RestFailed(call, 0, f"no whole answer within {self._timeout_seconds:.0f} s") from None
        except Exception as error:  # noqa: BLE001 - of httpx, its transport, TLS, or an address that is none: no answer
            raise RestFailed(call, 0, _kind(error)) from None


async def _check(call: str, answer: httpx2.Response) -> None:
    """Raises RestFailed with what an answer says that is no success."""
    if answer.is_success:
        return
    try:
        said = members_of(await whole(answer, SMALL_BYTES))
    except (BodyRefused, NotTaken):
        raise RestFailed(call, answer.status_code, NOT_JSON) from None
    error_part = _object(said.get("error"))
    retry_after = bounded_seconds(error_part.get("retry_after", value_of(said.get("retry_after"))))
    raise RestFailed(call, answer.status_code, _code(error_part.get("code")), retry_after)


async def _entries(
    answer: httpx2.Response, limits: Limits, most_bytes: int, within: trio.CancelScope
) -> AsyncGenerator[bytes]:
    """Yields the entries of an answer's list; while they are taken apart and used the relay's time stands still. Raises BodyRefused."""
    listing = Listing(limits)
    async with aclosing(pieces(answer, most_bytes)) as parts:
        async for part in parts:
            left_seconds, within.deadline = within.deadline - trio.current_time(), math.inf
            try:
                for entry in listing.feed(part):
                    yield entry
            finally:
                within.deadline = trio.current_time() + left_seconds
    if not listing.is_whole:
        raise BodyRefused("a list that does not end" if listing.was_found else NOT_A_LIST)


def bounded_seconds(value: object) -> float:
    """Returns a `retry_after` within 0 to MOST_RETRY_AFTER_SECONDS; 0 for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value <= 0:  # noqa: PLR0124 - NaN
        return 0.0
    return float(min(value, MOST_RETRY_AFTER_SECONDS))


def _relation_in(entry: Text) -> Relation | None:
    """Returns the relation of an entry; None where that is none. A status that is told and is none is no known one, not an absent one."""
    relation = read_as(Relation, entry)
    if relation is None or relation.status is not None:
        return relation
    told = members_of(entry).get("status", b"null")
    return relation if bytes(told) == b"null" else msgspec.structs.replace(relation, status=NO_STATUS)


def _object(text: Text | None) -> Json:
    """Returns the members of an object that can be read; none for what is no object."""
    try:
        members = {} if text is None else members_of(text)
    except NotTaken:
        return {}
    return {name: value_of(member) for name, member in members.items()}


def _code(said: object) -> str:
    """Returns what the relay calls an error, short and printable, as it may stand in a log."""
    return "".join(character for character in said[:64] if character.isprintable()) if isinstance(said, str) else ""


def _frame_or_none(entry: Text) -> FromRelay | UnknownFrame | None:
    try:
        return decode_from_relay(entry)
    except MalformedFrame:
        return None


def _proxy(way: Way, proxy: Proxy) -> httpx2.Proxy:
    return httpx2.Proxy(proxy.url, ssl_context=way.tls if proxy.scheme == "https" else None, headers=proxy.headers)


def _kind(error: Exception) -> str:
    """Returns the error's type, the cause where no connection came about, and the status of a proxy's refusal; its text may quote what is none of a
    log's business.
    """
    if isinstance(error, httpx2.ConnectError) and (cause := why(error)) != type(error).__name__:
        return f"{type(error).__name__} ({cause})"
    status = re.match("[0-9]{3}", str(error)) if isinstance(error, httpx2.ProxyError) else None
    return type(error).__name__ + (f" (the proxy answers {status[0]})" if status else "")


@asynccontextmanager
async def open_client(
    base_url: str,
    token: Secret[str] | None,
    way: Way,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    most_connections: int = MOST_CONNECTIONS,
    most_kept: int = ASKED_AT_ONCE,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Yields an HTTP client that goes the given way, whatever stands in the environment; it is closed with the block."""
    headers = {"Accept-Encoding": "gzip"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.reveal()}"
    limits = httpx2.Limits(max_connections=most_connections, max_keepalive_connections=most_kept)
    async with httpx2.AsyncClient(
        base_url=base_url,
        headers=headers,
        timeout=timeout_seconds,
        limits=limits,
        trust_env=False,
        verify=way.tls or False,  # False: on a way without TLS nothing is to be verified
        proxy=None if way.proxy is None else _proxy(way, way.proxy),
    ) as client:
        # What answers set would be kept, and sent, for ever.
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        yield client


@asynccontextmanager
async def open_rest(
    base_url: str,
    agent_id: str,
    token: Secret[str],
    way: Way = DIRECTLY,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> AsyncIterator[Rest]:
    """Yields the calls of one agent, over a client that is closed with the block."""
    async with open_client(base_url, token, way) as client:
        yield Rest(client, agent_id, timeout_seconds=timeout_seconds)
