"""Sends requests to the receiver of OTLP over HTTP: one connection, one request after the other, each with a time limit. For one thread.

The receiver is reached directly: neither a proxy, nor a netrc, nor anything else of the environment is used. Of its answer only the status
is used.
"""

import enum
import http.client
import ssl
from dataclasses import dataclass

from bus.telemetry.settings import TelemetrySettings
from host.reasons import why

MOST_ANSWER_BYTES = 64 * 1024
TRY_AGAIN = frozenset({429, 502, 503, 504})
"""The HTTP statuses after which OTLP allows to send again."""

_CONTENT_TYPE = "application/x-protobuf"


class RequestFate(enum.Enum):
    """The outcomes of a request."""

    TAKEN = enum.auto()
    LATER = enum.auto()
    """It may be sent again: the receiver is away, or busy."""
    NEVER = enum.auto()
    """It would be refused again."""


@dataclass(frozen=True)
class RequestOutcome:
    """The outcome of a request. `reason`: in a few words of ours; '' if it was taken."""

    fate: RequestFate
    reason: str = ""


class Receiver:
    """The connection to the receiver; used by one thread."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self._endpoint = settings.endpoint
        self._headers = {"Content-Type": _CONTENT_TYPE, "User-Agent": "hashee-agent", **settings.headers}
        self._ca = settings.ca
        self._timeout_seconds = settings.timeout_seconds
        self._connection: http.client.HTTPConnection | None = None

    def post(self, signal: str, body: bytes) -> RequestOutcome:
        """Sends one request and returns the outcome. `signal`: traces or metrics."""
        for is_kept in (self._connection is not None, False):
            try:
                status = self._ask(f"{self._endpoint.path}/v1/{signal}", body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.close()
                if is_kept and not isinstance(error, TimeoutError):
                    continue  # a connection that was kept may have ended long ago
                return RequestOutcome(RequestFate.LATER, _reason(error))
            break
        if 200 <= status < 300:
            return RequestOutcome(RequestFate.TAKEN)
        return RequestOutcome(RequestFate.LATER if status in TRY_AGAIN else RequestFate.NEVER, f"HTTP status {status}")

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _ask(self, path: str, body: bytes) -> int:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        if len(answer.read(MOST_ANSWER_BYTES)) == MOST_ANSWER_BYTES or answer.will_close:
            self.close()
        return answer.status

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.host, self._endpoint.port
        if self._endpoint.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self._ca)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=context)


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hangs up"
    return "its answer is no HTTP" if isinstance(error, http.client.HTTPException) else why(error)
