"""Serves the status page, metrics and probes, from a thread with an event loop of its own.

So a supervisor that is stuck still answers truthfully, and its exit never waits for a client that has stopped reading.
"""

import html
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Framework
from hypercorn.utils import wrap_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from host.bounded_listener import BoundedListener
from supervisor.observe.health import Check, Health
from supervisor.observe.metrics import Metrics

STOP_WAIT_SECONDS = 1.0
BACKLOG = 128

THREAD = "http"

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class ClientBounds:
    """What clients may take of the server."""

    most: int = 64
    """At once; one more, and the one that is there longest is hung up on."""

    read_seconds: int = 10
    """A client that is silent for so long within a request is hung up on; between two requests after 5 s (hypercorn's default)."""

    seconds: float = 60.0
    """A client is hung up on after so long, however slowly it sends or reads; one that asks every few seconds connects again."""


CLIENT_BOUNDS = ClientBounds()


class HttpServer:
    """The serving thread; it ends with the process, or when it is told to stop."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._thread: threading.Thread | None = None
        self._is_wanted = True

    @property
    def dead_threads(self) -> list[str]:
        """Returns the thread's name if it has ended without being told to, since probes and metrics would fail for ever."""
        return [THREAD] if self._is_wanted and self._thread is not None and not self._thread.is_alive() else []

    def start(self, app: Starlette, listener: socket.socket, bounds: ClientBounds) -> None:
        """Starts serving in the thread."""
        self._thread = threading.Thread(target=_run, args=(app, listener, self, bounds), name=THREAD, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accepts no more clients; requests under way are answered."""
        self._is_wanted = False
        if self._begun.wait(STOP_WAIT_SECONDS) and self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)

    async def stopped(self) -> None:
        """Waits, in the thread, until told to stop."""
        self._token = trio.lowlevel.current_trio_token()
        self._begun.set()
        await self._stop.wait()


def start_http(
    listener: socket.socket, health: Health, metrics: Metrics, bounds: ClientBounds = CLIENT_BOUNDS
) -> HttpServer:
    """Starts serving on a listening socket, which is taken over, until stopped or the end of the process."""
    server = HttpServer()
    pages = Pages(health, metrics)
    app = Starlette(
        routes=[
            Route("/", pages.status),
            Route("/healthz", pages.healthz),
            Route("/readyz", pages.readyz),
            Route("/metrics", pages.metrics),
        ]
    )
    listener.listen(BACKLOG)
    server.start(app, socket.socket(fileno=listener.detach()), bounds)  # the server's from now on
    return server


class Pages:
    """The answers to requests."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    async def healthz(self, _request: Request) -> Response:
        """Answers whether our own loops turn; it fails only for what a restart can mend."""
        return _answer((self._health.liveness(),))

    async def readyz(self, _request: Request) -> Response:
        """Answers whether the whole path works."""
        return _answer(self._health.readiness())

    async def metrics(self, _request: Request) -> Response:
        """Answers with all metrics, for Prometheus."""
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _request: Request) -> Response:
        """Answers with a page for people."""
        rows = "".join(
            f"<tr><td>{'ok' if check.ok else 'NOT OK'}</td><td>{html.escape(check.name)}</td>"
            f"<td>{html.escape(check.detail)}</td></tr>"
            for check in self._health.readiness()
        )
        return HTMLResponse(
            "<!doctype html><title>hashee-agent</title><h1>hashee-agent</h1>"
            f"<table>{rows}</table><p><a href='/metrics'>metrics</a> <a href='/readyz'>readyz</a> "
            "<a href='/healthz'>healthz</a></p>"
        )


def _answer(checks: tuple[Check, ...]) -> Response:
    ok = all(check.ok for check in checks)
    body = msgspec.json.encode({"ok": ok, "checks": checks})
    return Response(body, status_code=200 if ok else 503, media_type="application/json")


def _run(app: Starlette, listener: socket.socket, server: HttpServer, bounds: ClientBounds) -> None:
    try:
        trio.run(_serve, app, listener, server, bounds)
    except Exception as error:  # noqa: BLE001 - the thread's end must not be silent
        log.error("http: ended", exception=type(error).__name__)


async def _serve(app: Starlette, listener: socket.socket, server: HttpServer, bounds: ClientBounds) -> None:
    """Serves like hypercorn's own `serve`, but with a bound on the number of clients and their time."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.read_timeout = bounds.read_seconds
    config.include_server_header = False
    wrapped = wrap_app(cast(Framework, app), config.wsgi_max_body_size, None)
    context = WorkerContext(None)
    sockets = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    accepting = BoundedListener(sockets, bounds.most, hang_up_on_oldest=True)
    async with trio.open_nursery() as clients:
        async with accepting, trio.open_nursery() as nursery:
            nursery.start_soon(
                accepting.serve, partial(_serve_client, wrapped, config, context, bounds.seconds), clients
            )
            await server.stopped()
            nursery.cancel_scope.cancel()
        await context.terminated.set()  # requests under way are answered; clients between two requests are hung up on
        clients.cancel_scope.deadline = trio.current_time() + config.graceful_timeout


async def _serve_client(
    app: AppWrapper, config: Config, context: WorkerContext, seconds: float, stream: trio.SocketStream
) -> None:
    either = cast("trio.SSLStream[trio.SocketStream]", stream)  # it serves both; its signature names one
    with trio.move_on_after(seconds):
        await TCPServer(app, config, context, ConnectionState({}), either)
