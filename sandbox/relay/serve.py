"""The relay as a process: one loopback port for REST and WebSocket, announced when it accepts, ended by a signal.

hypercorn shields its sends, so a stop could wait for a client that has stopped reading: the relay is always a process
of its own, and TERM and INT end it at once. With a state file it comes back as it was.
"""

import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
from pathlib import Path

import hypercorn.trio.run
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.events import Event
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from host.parent_death import die_with_parent
from sandbox.relay.faults import Faults
from sandbox.relay.hub import Hub
from sandbox.relay.rest import ProtocolRest
from sandbox.relay.rest_files import FilesRest
from sandbox.relay.rest_sandbox import SandboxRest
from sandbox.relay.sessions import Sending
from sandbox.relay.shelf import FolderShelf, NamelessShelf
from sandbox.relay.sockets import PING_SECONDS, Doors, Heartbeat
from sandbox.relay.state import RelayState
from sandbox.relay.stats import Stats
from sandbox.relay.storage import MemoryStorage, SqliteStorage
from sandbox.relay.streams import MAX_STREAM_SECONDS, ORPHAN_SECONDS, StreamLimits, Streams

MAX_WEBSOCKET_MESSAGE_BYTES = 4 * 1024 * 1024
"""Above every legal frame: what is too large is refused with `message.error`, not with a close."""


class NotLoopback(Exception):
    """The sandbox has no access control worth the name: it does not listen where others could reach it."""


class RelayOptions(msgspec.Struct, frozen=True):
    host: str = "127.0.0.1"
    port: int = 0
    state_file: Path | None = None
    ready_file: Path | None = None
    announce_fd: int | None = None
    parent_pid: int | None = None
    enforce_rate: bool = False
    ping_seconds: float = PING_SECONDS
    stream_seconds: float = MAX_STREAM_SECONDS
    stream_orphan_seconds: float = ORPHAN_SECONDS


def run_relay(options: RelayOptions) -> None:
    """Serves until a signal ends the process. Raises `NotLoopback`, or OSError if the port is in use."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    trio.run(_serve, options, listen_on_loopback(options.host, options.port))


def listen_on_loopback(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `NotLoopback` for an address that is not."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise NotLoopback(f"the sandbox listens on loopback only, not on {host}: use 127.0.0.1 or ::1")
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it: a push or an answer must not wait for the acknowledgement of the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((address, port))
    return listener


async def _serve(options: RelayOptions, listener: socket.socket) -> None:
    storage = SqliteStorage(options.state_file) if options.state_file else MemoryStorage()
    shelf = FolderShelf(options.state_file.with_suffix(".files")) if options.state_file else NamelessShelf()
    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.backlog = 1024
    config.loglevel = "WARNING"
    config.websocket_ping_interval = options.ping_seconds
    config.websocket_max_message_size = MAX_WEBSOCKET_MESSAGE_BYTES
    config.keep_alive_timeout = 60
    config.keep_alive_max_requests = 1_000_000
    hypercorn.trio.run.TCPServer = _Connection  # type: ignore[attr-defined]  # there is no other way in
    async with trio.open_nursery() as nursery:
        hub = Hub(RelayState(storage, shelf), Faults(), Stats(), nursery)
        streams = Streams(hub, StreamLimits(options.stream_seconds, options.stream_orphan_seconds))
        nursery.start_soon(streams.watch)
        await nursery.start(serve, application(hub, streams, options), config)
        _announce(options, listener)


class _Connection(TCPServer):
    """hypercorn closes a connection without waiting for what is being sent, and the sender's error would end the whole server."""

    async def protocol_send(self, event: Event) -> None:
        with contextlib.suppress(trio.BusyResourceError):  # it is being closed: what was to be sent goes with it
            await super().protocol_send(event)


def application(hub: Hub, streams: Streams, options: RelayOptions) -> Starlette:
    sending = Sending(hub, enforce_rate=options.enforce_rate)
    doors = Doors(hub, sending, streams, Heartbeat(ping_seconds=options.ping_seconds))
    sockets = [WebSocketRoute("/ws/agent", doors.agent), WebSocketRoute("/ws/human", doors.human)]
    rest = [*ProtocolRest(hub).routes(), *FilesRest(hub).routes(), *SandboxRest(hub).routes()]
    return Starlette(routes=[*sockets, *rest])


def _announce(options: RelayOptions, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    line = json.dumps({"url": url}) + "\n"
    sys.stdout.write(line)
    sys.stdout.flush()
    if options.announce_fd is not None:
        os.write(options.announce_fd, line.encode())
        os.close(options.announce_fd)
    if options.ready_file is not None:
        partial = options.ready_file.with_suffix(".partial")
        partial.write_text(line, encoding="utf-8")
        partial.rename(options.ready_file)
