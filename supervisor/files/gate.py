"""What a request to the gate means: which call it is, whether its caller may make it, and how it ends, counted by its reason.

A proof is checked before anything else of a call. Nothing is decided here about addresses (upload_urls.py) nor about the relay's answers
(relay_files.py).
"""

import hashlib
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from structlog import get_logger

from bus.files.calls import (
    CONFIRM_PATH,
    MAX_BODY_BYTES,
    MAX_SEALED_BYTES,
    MIN_SEALED_BYTES,
    MOST_UPLOADS,
    PROOF_HEADER,
    TICKET_HEADER,
    UPLOADS_PATH,
    Announced,
    CallFailure,
    Confirm,
    Confirmed,
    NewUpload,
    Received,
    first_byte_of,
    is_id,
    is_sha256,
)
from bus.files.proofs import Call, ProofChecker
from host.unreadable import UNREADABLE
from supervisor.files.counts import FileCounts, FileMetrics
from supervisor.files.exchange import ClientGone, Exchange
from supervisor.files.failures import CallFailed
from supervisor.files.key_file import KnownKey
from supervisor.files.relay_files import RelayFiles
from supervisor.files.tickets import Tickets

MOST_DOWNLOADS = 16
"""At once: each holds a piece or two of at most 512 KiB, and two connections."""

TURN_SECONDS = 10.0
"""How long a transfer waits for its turn, before its caller is told to come again."""

MOST_SECONDS = 3600.0
"""100 MB at 28 KB a second: what is slower is given up, or a trickle would hold its place for ever."""

SAID_AGAIN_SECONDS = 5.0
"""A reason stands in the log so often at most, with how many were not said since; all are counted."""

_PUT = re.compile(rf"{UPLOADS_PATH}/([^/?]+)")
_GET = re.compile(r"/v1/files/([^?]+)\?size=([0-9]{1,12})")

Body = TypeVar("Body", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many transfers run at once, how long one waits for its turn, and how long it may take at most."""

    uploads: int = MOST_UPLOADS
    downloads: int = MOST_DOWNLOADS
    turn_seconds: float = TURN_SECONDS
    most_seconds: float = MOST_SECONDS


@dataclass(frozen=True)
class Check:
    """One thing of which a probe tells whether it is well."""

    name: str
    is_ok: bool = True
    detail: str = ""


class Gate:
    """Answers the calls of one agent's workers, and probes."""

    def __init__(
        self,
        relay: RelayFiles,
        tickets: Tickets,
        key: KnownKey,
        counts: FileCounts,
        *,
        now: Callable[[], float],
        bounds: Bounds | None = None,
    ) -> None:
        """`now`: seconds since 1970."""
        bounds = bounds or Bounds()
        self._relay = relay
        self._tickets = tickets
        self._key = key
        self._counts = counts
        self._now = now
        self._proofs = ProofChecker()
        self._room = {"out": trio.Semaphore(bounds.uploads), "in": trio.Semaphore(bounds.downloads)}
        self._turn_seconds = bounds.turn_seconds
        self._ended = trio.Event()
        self._most_seconds = bounds.most_seconds
        self._said: dict[CallFailure, tuple[float, int]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(FileMetrics(lambda: counts))
        self._log = get_logger()

    async def until_quiet(self) -> None:
        """Returns when no transfer is under way."""
        while not self._counts.is_idle:
            await self._ended.wait()

    async def handle(self, exchange: Exchange) -> None:
        """Answers one request. Raises ClientGone where there is nobody to be answered."""
        try:
            await self._route(exchange)
        except ClientGone:
            raise
        except CallFailed as failed:
            await self._fail(exchange, failed)
        except Exception as error:  # noqa: BLE001 - whatever a relay or a caller has thought of: the others' transfers go on
            await self._fail(exchange, CallFailed(CallFailure.DEFECT, f"a defect of the gate: {type(error).__name__}"))

    async def _fail(self, exchange: Exchange, failed: CallFailed) -> None:
        self._counts.failed(failed.failure)
        said_at, unsaid = self._said.get(failed.failure, (-math.inf, 0))
        if self._now() - said_at >= SAID_AGAIN_SECONDS:
            self._log.info("files: a call failed", reason=failed.failure, why=failed.message, unsaid_before=unsaid)
            self._said[failed.failure] = (self._now(), 0)
        else:
            self._said[failed.failure] = (said_at, unsaid + 1)
        if exchange.is_answered:
            raise ClientGone from None  # in the middle of a file: its end must not look like one
        await exchange.answer(failed.status, failed.body)

    async def _route(self, exchange: Exchange) -> None:
        match exchange.method, exchange.target:
            case "GET", "/healthz":
                await self._probe(exchange, Check("files"))
            case "GET", "/readyz":
                await self._probe(exchange, *self._ready(exchange))
            case "GET", "/metrics":
                await exchange.whole_body(0)
                await exchange.answer(200, generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)
            case "POST", path if path == UPLOADS_PATH:
                await self._announce(exchange)
            case "POST", path if path == CONFIRM_PATH:
                await self._confirm(exchange)
            case "PUT", path if found := _PUT.fullmatch(path):
                await self._put(exchange, found[1])
            case "GET", path if found := _GET.fullmatch(path):
                await self._get(exchange, found[1], int(found[2]))
            case _:
                raise CallFailed(CallFailure.NO_SUCH_CALL, "there is no such call")

    def _ready(self, exchange: Exchange) -> Iterator[Check]:
        """Yields whether calls can be served, and of a request with a proof whether that would count. It is no call: nothing is noted of it."""
        key = self._key.current()
        if key is None:
            yield Check("files", is_ok=False, detail="no supervisor has written its key")
        else:
            yield Check("files")
            if proof := exchange.header(PROOF_HEADER):
                refused = self._proofs.check(key, proof, Call("GET", exchange.target, 0), self._now())
                said = "" if refused is None else f"{refused.failure}: {refused.message}"
                yield Check("proof", is_ok=not said, detail=said)

    async def _probe(self, exchange: Exchange, *checks: Check) -> None:
        await exchange.whole_body(0)
        is_ok = all(check.is_ok for check in checks)
        said = [{"name": check.name, "ok": check.is_ok, "detail": check.detail} for check in checks]
        await exchange.answer(200 if is_ok else 503, {"ok": is_ok, "checks": said})

    async def _announce(self, exchange: Exchange) -> None:
        wanted = await self._proven_body(exchange, NewUpload)
        if not is_id(wanted.conversation_id):
            raise CallFailed(CallFailure.BAD_CALL, "conversation_id is none")
        if wanted.size < MIN_SEALED_BYTES:
            raise CallFailed(CallFailure.BAD_CALL, "no sealed file is so small")
        if wanted.size > MAX_SEALED_BYTES:
            raise CallFailed(CallFailure.TOO_LARGE, "a file has at most 100 MB")
        ticket = await self._relay.announce(wanted.conversation_id, wanted.size)
        await exchange.answer(200, Announced(ticket.upload_id, self._tickets.make(ticket)))

    async def _confirm(self, exchange: Exchange) -> None:
        wanted = await self._proven_body(exchange, Confirm)
        if not is_id(wanted.upload_id) or not is_sha256(wanted.sha256):
            raise CallFailed(CallFailure.BAD_CALL, "upload_id or sha256 is none")
        await exchange.answer(200, Confirmed(await self._relay.confirm(wanted.upload_id, wanted.sha256)))

    async def _put(self, exchange: Exchange, upload_id: str) -> None:
        sealed_ticket = exchange.header(TICKET_HEADER)
        self._prove(exchange, sealed_ticket)
        ticket = self._tickets.open(sealed_ticket, upload_id)
        if exchange.content_length != ticket.size:
            raise CallFailed(CallFailure.WRONG_LENGTH, f"{ticket.size} bytes were announced")
        async with self._transfer("out"):
            await self._relay.put(ticket, exchange.body())
            self._counts.transferred("out", ticket.size)
            await exchange.answer(200, Received(ticket.size))

    async def _get(self, exchange: Exchange, attachment_id: str, size: int) -> None:
        asked = exchange.header("range")
        self._prove(exchange, asked)
        await exchange.whole_body(0)
        first = first_byte_of(asked) if asked else 0
        if not is_id(attachment_id):
            raise CallFailed(CallFailure.BAD_CALL, "the attachment's id is none")
        if first is None or first >= size or not MIN_SEALED_BYTES <= size <= MAX_SEALED_BYTES:
            raise CallFailed(CallFailure.BAD_CALL, "no such size or range")
        async with self._transfer("in"), self._relay.get(attachment_id, size, first) as file:
            headers = {"content-type": "application/octet-stream"}
            if file.can_resume:
                headers["accept-ranges"] = "bytes"
            if file.first:
                headers["content-range"] = f"bytes {file.first}-{size - 1}/{size}"
            await exchange.begin_answer(206 if file.first else 200, size - file.first, headers)
            async for piece in file.pieces:
                await exchange.send(piece)
            await exchange.end_answer()
        self._counts.transferred("in", size - file.first)

    async def _proven_body(self, exchange: Exchange, kind: type[Body]) -> Body:
        body = await exchange.whole_body(MAX_BODY_BYTES)
        self._prove(exchange, hashlib.sha256(body).hexdigest())
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE:
            raise CallFailed(CallFailure.BAD_CALL, "the body is none of this call") from None

    def _prove(self, exchange: Exchange, bound: str) -> None:
        """Raises CallFailed where the call's proof does not count."""
        key = self._key.current()
        if key is None:
            raise CallFailed(CallFailure.NO_KEY, "no supervisor has started yet in this state directory")
        call = Call(exchange.method, exchange.target, exchange.content_length, bound)
        refused = self._proofs.check(key, exchange.header(PROOF_HEADER), call, self._now())
        if refused is not None:
            raise CallFailed(refused.failure, refused.message)

    @asynccontextmanager
    async def _transfer(self, direction: str) -> AsyncIterator[None]:
        """A transfer's turn. Raises CallFailed `busy` when it does not come."""
        room = self._room[direction]
        try:
            with trio.fail_after(self._turn_seconds):
                await room.acquire()
        except trio.TooSlowError:
            raise CallFailed(CallFailure.BUSY, "as many transfers as may be are under way", 1.0) from None
        self._counts.under_way[direction] = self._counts.under_way.get(direction, 0) + 1
        try:
            with trio.fail_after(self._most_seconds):
                yield
        except trio.TooSlowError:
            raise CallFailed(CallFailure.RELAY_SLOW, f"the transfer took over {self._most_seconds:.0f} s") from None
        finally:
            self._counts.under_way[direction] -= 1
            room.release()
            self._ended.set()
            self._ended = trio.Event()
