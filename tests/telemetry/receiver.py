"""A real receiver of OTLP over HTTP on loopback: what it takes it decodes as the specification says; it can refuse, stall and talk nonsense."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.waiting import said_of, waiting_for

STALL_SECONDS = 30.0
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Seen:
    """A span as it came. `resource` and `attributes` as dictionaries."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    is_error: bool
    scope: str
    resource: dict[str, Any]
    attributes: dict[str, Any]
    events: tuple[str, ...]


@dataclass
class Taken:
    """Everything that came. `behave`: how a request is answered: `take`, `stall`, `garbage`, `hang up`, or a status."""

    url: str = ""
    behave: str | int = "take"
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    tried: int = 0
    """How many requests came, whatever became of them."""
    ended: threading.Event = field(default_factory=threading.Event)
    connections: list[socket.socket] = field(default_factory=list)

    def hang_up(self) -> None:
        """Ends every connection that is kept."""
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    @property
    def raw(self) -> bytes:
        """All bodies."""
        return b"".join(body for _, _, body in list(self.requests))

    @property
    def spans(self) -> list[Seen]:
        """All spans, in the order in which they came."""
        found = []
        for path, _, body in list(self.requests):
            if path.endswith("/v1/traces"):
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        found += [_seen(span, scope.scope.name, _plain(resource.resource)) for span in scope.spans]
        return found

    @property
    def metrics(self) -> dict[str, Metric]:
        """The latest of each name."""
        found: dict[str, Metric] = {}
        for path, _, body in list(self.requests):
            if path.endswith("/v1/metrics"):
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in resource.scope_metrics:
                        found |= {metric.name: metric for metric in scope.metrics}
        return found

    async def until(self, condition: Callable[[], object]) -> None:
        """Until it holds of what came."""
        with waiting_for(said_of(condition), PATIENCE_SECONDS):
            while not condition():
                await trio.sleep(0.02)


def _seen(span: Any, scope: str, resource: dict[str, Any]) -> Seen:
    return Seen(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        scope,
        resource,
        _plain(span),
        tuple(event.name for event in span.events),
    )


def _plain(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@contextmanager
def receiver(behave: str | int = "take") -> Iterator[Taken]:
    """Listens for the block."""
    taken = Taken(behave=behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            taken.connections.append(self.connection)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            how = taken.behave
            taken.tried += 1
            if how == "stall":
                taken.ended.wait(STALL_SECONDS)
                self.close_connection = True
            elif how == "hang up":
                self.close_connection = True
            elif how == "garbage":
                self.wfile.write(b"\x00\xffthis is no HTTP\r\n\r\n" * 20)
                self.close_connection = True
            else:
                if how == "take":
                    taken.requests.append((self.path, dict(self.headers), body))
                self.send_response(200 if how == "take" else int(how))
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taken.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield taken
    finally:
        taken.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """For tests without an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
