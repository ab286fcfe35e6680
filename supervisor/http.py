"""Status page, metrics and probes, from a thread and an event loop of their own.

So a stuck supervisor still answers, with the truth, and its exit never waits for a client that has stopped reading.
"""

import html
import socket
import threading
from contextlib import suppress
from typing import cast

import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from supervisor.health import Check, Health
from supervisor.metrics import Metrics

STOP_WAIT_SECONDS = 1.0
READ_SECONDS = 10
"""A client that says nothing for so long in the middle of its request is gone; one between two requests after 5 s (hypercorn's own)."""

THREAD = "http"

log = structlog.get_logger()


class HttpServer:
    """The thread that serves; it ends with the process, or when it is told to stop."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._thread: threading.Thread | None = None
        self._is_wanted = True

    @property
    def dead_threads(self) -> list[str]:
        """Its thread, if that has ended and nobody had told it to: probes and metrics would fail for ever."""
        return [THREAD] if self._is_wanted and self._thread is not None and not self._thread.is_alive() else []

    def start(self, app: Starlette, config: Config) -> None:
        """In a thread of its own."""
        self._thread = threading.Thread(target=_run, args=(app, config, self), name=THREAD, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accept nothing more; what is being answered is."""
        self._is_wanted = False
        if self._begun.wait(STOP_WAIT_SECONDS) and self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)

    async def stopped(self) -> None:
        """In the thread: until told to stop."""
        self._token = trio.lowlevel.current_trio_token()
        self._begun.set()
        await self._stop.wait()


def start_http(listener: socket.socket, health: Health, metrics: Metrics) -> HttpServer:
    """Serve on a listening socket, which is taken over, for as long as the process lives or until stopped."""
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
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # the server's from now on
    config.accesslog = None
    config.errorlog = None
    config.read_timeout = READ_SECONDS
    config.include_server_header = False
    server.start(app, config)
    return server


class Pages:
    """What is answered."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    async def healthz(self, _request: Request) -> Response:
        """Does our own loop turn? Never fails for what a restart cannot mend."""
        return _answer((self._health.liveness(),))

    async def readyz(self, _request: Request) -> Response:
        """Is the whole path proven?"""
        return _answer(self._health.readiness())

    async def metrics(self, _request: Request) -> Response:
        """Everything counted, for Prometheus."""
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _request: Request) -> Response:
        """The same for a person."""
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


def _run(app: Starlette, config: Config, server: HttpServer) -> None:
    try:
        trio.run(_serve, app, config, server)
    except Exception as error:  # noqa: BLE001 - the thread's end must not be silent
        log.error("http: ended", exception=type(error).__name__)


async def _serve(app: Starlette, config: Config, server: HttpServer) -> None:
    await serve(cast(Framework, app), config, shutdown_trigger=server.stopped)
