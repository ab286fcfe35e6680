"""The service of the shop's example, on a real socket: it knows each order by its key."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def shop() -> Iterator[tuple[str, dict[str, str]]]:
    """Gives its address, and what was ordered by the keys of the orders."""
    orders: dict[str, str] = {}

    class Shop(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            orders[self.headers["Idempotency-Key"]] = json.loads(body)["what"]
            answer = b'{"number": 7}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", orders
        finally:
            server.shutdown()
            thread.join()
