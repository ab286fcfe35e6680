"""Asks the running agent over its control socket, which only the agent's own user can open.

One client for `hashee-agent status`, `stop` and the like, and for programs of the owner's own: one set of errors, with the remedy in their
text, and one set of time limits. It blocks, makes no file, and needs no event loop.
"""

import enum
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bus.control.messages import ControlAnswer, Request, read_answer
from bus.settings.places import control_directories, control_place
from host.lines import LINE_LIMIT_BYTES, Lines, UnreadableLine
from host.socket_place import RuntimeDirectoryUnsafe

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
RECEIVE_BYTES: Final = 65536
UNREADABLE: Final = "the agent's answer cannot be read; is hashee-agent another version here?"


class Why(enum.Enum):
    """Why there is no answer."""

    NO_AGENT = "no_agent"
    NOT_OURS = "not_ours"
    TOO_LARGE = "too_large"
    SILENT = "silent"
    ENDED = "ended"
    UNREADABLE = "unreadable"

    @property
    def is_before(self) -> bool:
        """Whether the request has not gone out, so that nothing was done for it."""
        return self in (Why.NO_AGENT, Why.NOT_OURS, Why.TOO_LARGE)


class Unanswered(Exception):
    """There is no answer; the text says why and what helps, and quotes nothing of the request."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


class ControlLine:
    """A connection that is open: one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = Lines()
        self._ready: list[bytes] = []

    def ask(self, request: Request, *, patience_seconds: float | None = ANSWER_SECONDS) -> ControlAnswer:
        """Returns the first answer to a request. Raises Unanswered."""
        answer = next(self.answers(request, patience_seconds=patience_seconds), None)
        if answer is None:
            raise Unanswered(
                Why.ENDED, "the agent ended before it answered: see its log, and start it again with hashee-agent up"
            )
        return answer

    def answers(self, request: Request, *, patience_seconds: float | None) -> Iterator[ControlAnswer]:
        """Yields the answers as they come, until the agent ends the connection or the caller stops. Raises Unanswered.

        `patience_seconds`: for each answer; None: without a limit.
        """
        line = msgspec.json.encode(request)
        if len(line) > LINE_LIMIT_BYTES:
            raise Unanswered(Why.TOO_LARGE, "this is larger than a request may be: send it in parts")
        self._connection.settimeout(patience_seconds)
        try:
            self._connection.sendall(line + b"\n")
            while (found := self._next_line()) is not None:
                yield read_answer(found)
        except UnreadableLine:
            raise Unanswered(Why.UNREADABLE, UNREADABLE) from None
        except TimeoutError:
            raise Unanswered(
                Why.SILENT,
                f"the agent has not answered for {patience_seconds:.0f} s; its log, or QUIT to it, says more",
            ) from None
        except ConnectionError:
            return

    def _next_line(self) -> bytes | None:
        """Returns the next line; None where the agent has hung up. Raises Unanswered, OSError."""
        while not self._ready:
            data = self._connection.recv(RECEIVE_BYTES)
            if not data:
                return None
            self._ready = self._lines.feed(data)
            if self._lines.too_long:
                raise Unanswered(Why.UNREADABLE, UNREADABLE)
        return self._ready.pop(0)


class Control:
    """The control socket of the agent of one state directory."""

    def __init__(self, state_dir: Path, runtime_dir: Path) -> None:
        self._state_dir = state_dir
        self._runtime_dir = runtime_dir

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Control":
        """Returns that of the agent of HASHEE_STATE_DIR, or of HASHEE_AGENT_ID. Raises SettingsError."""
        return cls(*control_directories(environ))

    @contextmanager
    def connected(self) -> Iterator[ControlLine]:
        """Connects for the block. Raises Unanswered."""
        help_ = "start one with hashee-agent up, or set HASHEE_STATE_DIR"
        if not self._state_dir.is_dir():
            raise Unanswered(Why.NO_AGENT, f"no agent runs here: {self._state_dir} is not there ({help_})")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_SECONDS)
            try:
                connection.connect(str(control_place(self._state_dir, self._runtime_dir)))
            except PermissionError:
                raise Unanswered(
                    Why.NOT_OURS, f"the agent of {self._state_dir} belongs to another user; run this as that user"
                ) from None
            except RuntimeDirectoryUnsafe as problem:
                raise Unanswered(Why.NOT_OURS, str(problem)) from None
            except OSError:
                raise Unanswered(Why.NO_AGENT, f"no agent runs on {self._state_dir} ({help_})") from None
            yield ControlLine(connection)

    def answers(self, request: Request, *, patience_seconds: float | None) -> Iterator[ControlAnswer]:
        """Yields the answers to a request over a connection of its own, as ControlLine does. Raises Unanswered."""
        with self.connected() as line:
            yield from line.answers(request, patience_seconds=patience_seconds)
