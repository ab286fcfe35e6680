"""One file gate as a process: puts its parts together, serves on a listening socket, and leaves when it is told to, or is not needed any more.

Told to leave (TERM), it takes no new call and lets the transfers under way end, for a while. Under a keeper, which starts it again with the next
call, it also leaves when nobody has called for `idle_seconds`.
"""

import contextlib
import math
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from structlog import get_logger

from bus.files.calls import CallFailure
from bus.files.proofs import FilesKey
from bus.files.refused_tls import GATE_WITH_TLS, HANDSHAKE
from host.bounded_listener import BoundedListener
from host.name_lookups import look_names_up_apart
from supervisor.files.counts import CountsFile, FileCounts
from supervisor.files.exchange import Connection, Exchange, Patience
from supervisor.files.failures import CallFailed
from supervisor.files.gate import MOST_DOWNLOADS, Gate
from supervisor.files.key_file import FILES_KEY_FILE, KnownKey
from supervisor.files.relay_files import STALL_SECONDS, RelayFiles
from supervisor.files.tickets import Tickets
from supervisor.files.upload_urls import Origins
from supervisor.relay.rest import open_client
from supervisor.settings.files import FilesSettings
from supervisor.settings.way import Way

MOST_CLIENTS = 64
"""Connections at a time, of which most are idle: a further one waits in the kernel's queue."""

MOST_RELAY_CONNECTIONS = 2 * (MOST_DOWNLOADS + 8)
COUNTS_SECONDS = 1.0
SEND_BUFFER_BYTES = 1024 * 1024
"""What the kernel holds for a client that reads: so a piece is not waited for twice, where the processor is busy."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """`idle_seconds`: without a call for so long it leaves. `drain_seconds`: how long transfers under way may still take when it is told to."""

    idle_seconds: float = math.inf
    drain_seconds: float = 20.0
    patience: Patience = field(default_factory=Patience)


class Serving:
    """The gate while it serves: who is connected, and since when nobody is."""

    def __init__(self, gate: Gate, timing: Timing, tls: ssl.SSLContext | None) -> None:
        self._gate = gate
        self._timing = timing
        self._tls = tls
        self._busy_at = trio.current_time()
        self._clients = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serves one client."""
        self._clients += 1
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            if self._tls is None:
                await Connection(stream, self._timing.patience).serve(self._gate.handle)
            elif await self._begins_tls(stream):
                secured = trio.SSLStream(stream, self._tls, server_side=True)
                await Connection(secured, self._timing.patience).serve(self._gate.handle)
            else:
                await Connection(stream, self._timing.patience).serve(_refuse_what_is_in_the_clear)
        finally:
            self._clients -= 1
            self._busy_at = trio.current_time()

    async def _begins_tls(self, stream: trio.SocketStream) -> bool:
        """Looks at the first byte of a client, and leaves it there; true also of one that says nothing, which is waited for no longer."""
        first = HANDSHAKE
        with contextlib.suppress(OSError), trio.move_on_after(self._timing.patience.head_seconds):
            first = await stream.socket.recv(1, socket.MSG_PEEK) or HANDSHAKE
        return first == HANDSHAKE

    async def until_idle(self) -> None:
        """Returns when nobody has been connected for long enough."""
        while True:
            idle_at = math.inf if self._clients else self._busy_at + self._timing.idle_seconds
            if trio.current_time() >= idle_at:
                return
            await trio.sleep(min(60.0, self._timing.idle_seconds, max(0.0, idle_at - trio.current_time())))


async def run_files(settings: FilesSettings, listener: socket.socket, timing: Timing | None = None) -> None:
    """Serves on a listening socket, which is taken over, until told to leave or idle for too long."""
    look_names_up_apart()
    timing = timing or Timing()
    log = get_logger()
    counts_file = None if settings.state_dir is None else CountsFile(settings.state_dir)
    counts = FileCounts() if counts_file is None else counts_file.read()
    counts.under_way = {}
    async with _relay(settings) as relay, trio.open_nursery() as nursery:
        gate = Gate(relay, Tickets(settings.agent_token), _key_of(settings), counts, now=time.time)
        serving = Serving(gate, timing, settings.tls)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            if counts_file is not None:
                nursery.start_soon(_keep_counts, counts_file, counts)
            sockets = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            async with BoundedListener(sockets, MOST_CLIENTS) as accepting, trio.open_nursery() as accepted:
                accepted.start_soon(accepting.serve, serving.serve, nursery)
                accepted.start_soon(_cancel_on_signal, signals, accepted.cancel_scope)
                log.info("files: ready", relay=settings.base_url, way=settings.way.shown)
                await serving.until_idle()
                accepted.cancel_scope.cancel()
            with trio.move_on_after(timing.drain_seconds):
                await gate.until_quiet()
        _write_counts(counts_file, counts)
        log.info("files: ends")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _relay(settings: FilesSettings) -> AsyncIterator[RelayFiles]:
    outward = _outward(settings.way)
    bounds = {"timeout_seconds": STALL_SECONDS, "most_connections": MOST_RELAY_CONNECTIONS}
    async with (
        open_client(settings.base_url, settings.agent_token, settings.way, **bounds) as with_token,  # type: ignore[arg-type]
        # None is kept: a connection to an address was made for one host's name, and another's may have the same address.
        open_client(settings.base_url, None, outward, **bounds, most_kept=0) as without,  # type: ignore[arg-type]
    ):
        yield RelayFiles(
            settings.agent_id,
            Origins(settings.base_url, settings.upload_hosts),
            with_token=with_token,
            without=without,
            has_proxy=outward.proxy is not None,
        )


def _outward(way: Way) -> Way:
    """Returns the way to presigned places: the relay's, with TLS also where that one is on this machine and has none."""
    if way.tls is not None:
        return way
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return Way(way.proxy, context)


def _key_of(settings: FilesSettings) -> KnownKey:
    if settings.files_key is not None:
        return KnownKey(FilesKey(settings.files_key.reveal()), None)
    return KnownKey(None, None if settings.state_dir is None else settings.state_dir / FILES_KEY_FILE)


async def _refuse_what_is_in_the_clear(exchange: Exchange) -> None:
    """Answers a caller who was given http:// where the gate has a certificate: it would see a connection that ends, and no reason."""
    failed = CallFailed(CallFailure.BAD_CALL, str(GATE_WITH_TLS))
    await exchange.answer(failed.status, failed.body)


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _keep_counts(file: CountsFile, counts: FileCounts) -> None:
    complained = False
    while True:
        await trio.sleep(COUNTS_SECONDS)
        problem = _write_counts(file, counts)
        if problem is not None and not complained:
            get_logger().warning("files: the counts cannot be written", errno=problem.errno, reason=problem.strerror)
        complained = problem is not None


def _write_counts(file: CountsFile | None, counts: FileCounts) -> OSError | None:
    """Returns why it did not work: of a full disk, say. The numbers go on in memory, and no transfer is the worse for it."""
    try:
        if file is not None:
            file.write(counts)
    except OSError as problem:
        return problem
    return None
