"""The relay's side of the four calls (PROTOCOL §3, §4.1): asks it, passes bytes through, and gives each way in which that fails its name.

Nothing is repeated here, and no content is kept: who called decides what to try again. Redirects are never followed by the HTTP client.
"""

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urljoin

import httpcore2
import httpx2
import msgspec
import trio

from bus.files.calls import CallFailure, is_id, range_from
from bus.settings.url_parts import netloc
from host.unreadable import UNREADABLE
from supervisor.files.exchange import PIECE_BYTES
from supervisor.files.failures import CallFailed
from supervisor.files.tickets import Ticket
from supervisor.files.upload_urls import Destination, Origins, is_public
from supervisor.relay.bodies import BodyRefused, raw_pieces, whole
from supervisor.relay.rest import bounded_seconds

SMALL_BYTES = 64 << 10
STALL_SECONDS = 30.0
"""A relay that sends or takes nothing for so long is given up."""

LONG_BYTES = 1 << 20
"""A longer body is read past the HTTP client, whose connection it takes with it."""

RESOLVE_SECONDS = 10.0
OCTETS = "application/octet-stream"
FILENAME = "file"
"""What the relay is told a file is called: its name is in the sealed payload."""

DAILY_LIMIT = "DAILY_LIMIT"
SHA256_MISMATCH = "SHA256_MISMATCH"
NOT_UPLOADED = "NOT_UPLOADED"
MOST_CODE_CHARACTERS = 64

Value = TypeVar("Value")
Resolver = Callable[[str, int], Awaitable[list[str]]]


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    retry_after: float = 0.0


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class _Announced(msgspec.Struct, frozen=True):
    upload_id: str
    upload_url: str


class _Confirmed(msgspec.Struct, frozen=True):
    attachment_id: str


class _Data(msgspec.Struct, frozen=True):
    data: msgspec.Raw


@dataclass(frozen=True)
class Download:
    """A file that comes. `first`: from which byte on; `can_resume`: another request may ask for a part of it."""

    first: int
    size: int
    can_resume: bool
    pieces: AsyncIterator[bytes]


async def addresses_of(host: str, port: int) -> list[str]:
    """Returns the addresses of a host, as this machine finds them. Raises OSError."""
    with trio.fail_after(RESOLVE_SECONDS):
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class RelayFiles:
    """Asks for one agent. `with_token`: a client whose every request carries the token; `without`: one that has none.

    `has_proxy`: what `without` asks for goes through a proxy, which finds addresses by itself.
    """

    def __init__(
        self,
        agent_id: str,
        origins: Origins,
        *,
        with_token: httpx2.AsyncClient,
        without: httpx2.AsyncClient,
        has_proxy: bool,
        resolve: Resolver = addresses_of,
    ) -> None:
        self._agent_id = agent_id
        self._origins = origins
        self._with_token = with_token
        self._without = without
        self._has_proxy = has_proxy
        self._resolve = resolve

    async def announce(self, conversation_id: str, size: int) -> Ticket:
        """Announces an upload. Raises CallFailed."""
        body = {"filename": FILENAME, "content_type": OCTETS, "size": size, "conversation_id": conversation_id}
        said = await self._ask(f"/agents/{self._agent_id}/files", body, _Announced, CallFailure.REFUSED)
        if not is_id(said.upload_id):
            raise CallFailed(CallFailure.BAD_ANSWER, "the relay gave the upload an id that is none")
        self._origins.destination(said.upload_url)  # what cannot be used is said before anything is sealed
        return Ticket(said.upload_id, size, said.upload_url)

    async def put(self, ticket: Ticket, body: AsyncGenerator[bytes]) -> None:
        """Passes the bytes of an upload on to where its ticket says. Raises CallFailed."""
        to = self._origins.destination(ticket.url)
        headers = {"Content-Length": str(ticket.size), "Content-Type": OCTETS}
        async with (
            aclosing(body),
            self._answered("PUT", to, headers=headers, content=body, uses_token=to.is_relay) as answer,
        ):
            if answer.is_redirect:
                raise CallFailed(CallFailure.BAD_UPLOAD_URL, "an upload is not redirected")
            if not answer.is_success:
                gone = CallFailure.UPLOAD_GONE
                of_a_storage = {} if to.is_relay else {403: gone}  # a signature that is no longer good
                raise await _failure(answer, {404: gone, 410: gone, **of_a_storage})

    async def confirm(self, upload_id: str, sha256: str) -> str:
        """Confirms an upload. Returns the attachment's id. Raises CallFailed."""
        body = {"upload_id": upload_id, "sha256": sha256}
        said = await self._ask("/files/confirm", body, _Confirmed, CallFailure.UPLOAD_GONE)
        if not is_id(said.attachment_id):
            raise CallFailed(CallFailure.BAD_ANSWER, "the relay gave the attachment an id that is none")
        return said.attachment_id

    @asynccontextmanager
    async def get(self, attachment_id: str, size: int, first: int) -> AsyncIterator[Download]:
        """Yields a file of this ciphertext's size, from a byte on or, where the relay cannot, whole. Raises CallFailed."""
        where = self._origins.destination(f"/files/{attachment_id}")
        headers = {"Accept-Encoding": "identity", **({"Range": range_from(first)} if first else {})}
        async with self._answered("GET", where, headers=headers, uses_token=True) as answer:
            if not answer.is_redirect:
                yield await self._download(answer, size, first)
                return
            location = answer.headers.get("Location", "")
        elsewhere = self._origins.destination(urljoin(where.url, location) if location else "")
        async with self._answered("GET", elsewhere, headers=headers, uses_token=False) as answer:
            if answer.is_redirect:
                raise CallFailed(CallFailure.BAD_UPLOAD_URL, "a file is redirected once, not twice")
            yield await self._download(answer, size, first)

    async def _download(self, answer: httpx2.Response, size: int, first: int) -> Download:
        gone = CallFailure.NO_SUCH_FILE
        if not answer.is_success:
            raise await _failure(answer, {404: gone, 410: gone})
        starts = first if answer.status_code == 206 else 0
        if answer.status_code == 206 and answer.headers.get("Content-Range") != f"bytes {first}-{size - 1}/{size}":
            raise CallFailed(CallFailure.BAD_ANSWER, "the relay answers with another part than was asked for")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise CallFailed(CallFailure.BAD_ANSWER, "the relay sends the file encoded")
        if answer.headers.get("Content-Length") != str(size - starts):
            raise CallFailed(CallFailure.WRONG_SIZE, "the relay has another size of this file than its message says")
        can_resume = answer.headers.get("Accept-Ranges") == "bytes"
        pieces = past_the_client(answer, size - starts) if _is_long(answer, size - starts) else raw_pieces(answer)
        return Download(starts, size, can_resume, _named(pieces))

    async def _ask(self, path: str, body: object, kind: type[Value], gone: CallFailure) -> Value:
        """Returns the `data` of an answer. Raises CallFailed; `gone` where what was asked about is not there."""
        where = self._origins.destination(path)
        content, headers = msgspec.json.encode(body), {"Content-Type": "application/json"}
        async with self._answered("POST", where, headers=headers, content=content, uses_token=True) as answer:
            if not answer.is_success:
                raise await _failure(answer, {404: gone, 410: gone})
            try:
                data = msgspec.json.decode(await whole(answer, SMALL_BYTES), type=_Data).data
                return msgspec.json.decode(data, type=kind)
            except (BodyRefused, *UNREADABLE):
                raise CallFailed(CallFailure.RELAY_FAILED, "the relay's answer is none") from None

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        to: Destination,
        *,
        headers: dict[str, str],
        content: bytes | AsyncIterator[bytes] | None = None,
        uses_token: bool,
    ) -> AsyncIterator[httpx2.Response]:
        """Yields the relay's answer, its body unread. What fails on the way, also in the block, is a CallFailed."""
        client = self._with_token if uses_token else self._without
        url, extensions = to.url, dict[str, str]()
        if not to.is_relay:
            url, headers, extensions = await self._pinned(to, headers)
        try:
            request = client.build_request(method, url, headers=headers, content=content, extensions=extensions)
        except (httpx2.InvalidURL, ValueError):
            raise CallFailed(CallFailure.BAD_UPLOAD_URL, "the relay's address for a file is none") from None
        try:
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                yield answer
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                    await answer.aclose()
        except CallFailed:
            raise
        except httpx2.TimeoutException:
            raise CallFailed(CallFailure.RELAY_SLOW, f"nothing moved for {STALL_SECONDS:.0f} s at the relay") from None
        except (httpx2.TransportError, OSError) as error:
            raise CallFailed(CallFailure.RELAY_UNREACHABLE, f"the relay: {type(error).__name__}") from None

    async def _pinned(self, to: Destination, headers: dict[str, str]) -> tuple[str, dict[str, str], dict[str, str]]:
        """Returns the request for a presigned address so that it is made to an address which was looked at. Raises CallFailed."""
        if to.is_named:
            return to.url, headers, {}
        if self._has_proxy:
            raise CallFailed(
                CallFailure.BAD_UPLOAD_URL,
                f"a proxy would find the address of {to.host}, unseen; HASHEE_UPLOAD_HOSTS may name that host",
            )
        try:
            found = await self._resolve(to.host, to.port)
        except (OSError, trio.TooSlowError, UnicodeError):
            raise CallFailed(CallFailure.RELAY_UNREACHABLE, f"{to.host} is not found") from None
        address = next((one for one in found if is_public(one) and not is_own(one, to.port)), None)
        if address is None:
            raise CallFailed(
                CallFailure.BAD_UPLOAD_URL, f"{to.host} is an address inside of a network, not a public one"
            )
        try:
            pinned = str(httpx2.URL(to.url).copy_with(host=address))
        except (httpx2.InvalidURL, ValueError):
            raise CallFailed(CallFailure.BAD_UPLOAD_URL, "the relay's address for a file is none") from None
        return pinned, {**headers, "Host": netloc(to.host, to.port).removesuffix(":443")}, {"sni_hostname": to.host}


def is_own(address: str, port: int) -> bool:
    """Whether an address is one of this machine's own, by where the kernel would reach it from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))  # sends nothing
        except OSError:
            return False
        return str(probe.getsockname()[0]) == address


def _is_long(answer: httpx2.Response, length: int) -> bool:
    """Whether the rest of a body is worth a connection, which then serves no other request."""
    return length > LONG_BYTES and "Transfer-Encoding" not in answer.headers and "network_stream" in answer.extensions


async def past_the_client(answer: httpx2.Response, length: int) -> AsyncGenerator[bytes]:
    """Yields a body of this length: what came with its head by the HTTP client, the rest from its connection itself, in larger pieces.

    The client reads 64 KiB at a time, through six generators and a buffer. Raises httpx2's errors.
    """
    connection = cast(httpcore2.AsyncNetworkStream, answer.extensions["network_stream"])
    async with aclosing(raw_pieces(answer)) as first:
        piece = await anext(first, b"")
        while piece:
            yield piece
            length -= len(piece)
            if length <= 0:
                return
            try:
                piece = await connection.read(min(PIECE_BYTES, length), timeout=STALL_SECONDS)
            except httpcore2.TimeoutException:
                raise httpx2.ReadTimeout("nothing comes") from None
            except httpcore2.NetworkError as error:
                raise httpx2.ReadError(type(error).__name__) from None
        raise httpx2.RemoteProtocolError("the body ends too soon")


async def _named(pieces: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yields the pieces; a cut or a standstill is a CallFailed."""
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                yield piece
        except httpx2.TimeoutException:
            raise CallFailed(CallFailure.RELAY_SLOW, f"nothing came for {STALL_SECONDS:.0f} s from the relay") from None
        except httpx2.TransportError as error:
            raise CallFailed(CallFailure.RELAY_UNREACHABLE, f"the relay: {type(error).__name__}") from None


async def _failure(answer: httpx2.Response, own: dict[int, CallFailure]) -> CallFailed:
    """Returns what an answer says that is no success; `own`: what some statuses mean for this call."""
    status = answer.status_code
    try:
        error = msgspec.json.decode(await whole(answer, SMALL_BYTES), type=_Refusal).error
    except (BodyRefused, *UNREADABLE):
        error = _Error()
    code = "".join(one for one in error.code[:MOST_CODE_CHARACTERS] if one.isprintable())
    said = f"the relay answers {status} {code}".rstrip()
    wait_seconds = bounded_seconds(error.retry_after) or bounded_seconds(_number(answer.headers.get("Retry-After")))
    return CallFailed(_meaning(status, code, own), said, wait_seconds)


def _meaning(status: int, code: str, own: dict[int, CallFailure]) -> CallFailure:
    if status in own:
        return own[status]
    if status == 409:
        return {SHA256_MISMATCH: CallFailure.SHA256_MISMATCH, NOT_UPLOADED: CallFailure.UPLOAD_GONE}.get(
            code, CallFailure.REFUSED
        )
    if status == 429:
        return CallFailure.DAILY_LIMIT if code == DAILY_LIMIT else CallFailure.RELAY_LIMIT
    by_status = {401: CallFailure.RELAY_REFUSED_US, 408: CallFailure.RELAY_FAILED, 413: CallFailure.TOO_LARGE}
    return by_status.get(status, CallFailure.RELAY_FAILED if not 400 <= status < 500 else CallFailure.REFUSED)


def _number(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else 0.0
