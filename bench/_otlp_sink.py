"""Takes what OpenTelemetry sends by HTTP on loopback and throws it away, on a thread of the benchmark's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sink(BaseHTTPRequestHandler):
    """Reads a request and says that all is taken."""

    protocol_version = "HTTP/1.1"
    taken_bytes = 0

    def do_POST(self) -> None:
        Sink.taken_bytes += len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as BaseHTTPRequestHandler names it
        """Says nothing."""


@contextmanager
def otlp_sink() -> Iterator[str]:
    """The sink's URL, as long as the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        thread = threading.Thread(target=server.serve_forever, name="otlp-sink", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
