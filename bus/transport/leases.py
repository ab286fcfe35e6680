"""Renews the leases of the stream entries that a process holds, in a thread that no handler can starve (DESIGN rule 7).

A lease is an entry's idle time in its consumer group. Only its holder renews it; if another consumer has the entry meanwhile it is lost,
and a callback tells. Whatever Redis answers, the thread goes on: it reports what is wrong once, and renews again when that is mended.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import cast

import trio
from redis.exceptions import ResponseError

from bus.transport.joined import joined
from bus.transport.lua import Scripts
from bus.transport.trouble import Tell, Trouble
from bus.transport.wire import Command, RedisFailed, Wire, failure

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0


class LeaseKeeper:
    """Renews the leases of held entries, with a thread and a connection of its own."""

    def __init__(
        self,
        url: str,
        scripts: Scripts,
        *,
        stream: str,
        group: str,
        consumer: str,
        interrupted: str,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        """`interrupted`: key of the set of superseded entries. `renew_seconds`: how often leases are renewed."""
        self._renew_seconds = renew_seconds
        self._wire = Wire(url, scripts, answer_timeout_seconds=renew_seconds)
        self._renew = scripts["renew"]
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._interrupted = interrupted
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="redis-leases", daemon=True)
        self._trouble = Trouble(self._thread.name, self._tell_trouble)
        self.on_lost: Callable[[str], None] = _nobody_asked
        self.on_superseded: Callable[[str], None] = _nobody_asked
        self.on_trouble: Tell = _nobody_listens

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def thread_name(self) -> str:
        """As it is named in the process."""
        return self._thread.name

    @property
    def trouble(self) -> str:
        """The reason why leases cannot be renewed now; '' while they can."""
        return self._trouble.reason

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, entry_id: str) -> None:
        """Renews this entry's lease from now on."""
        with self._lock:
            self._held.add(entry_id)

    def release(self, entry_id: str) -> None:
        """Stops renewing it."""
        with self._lock:
            self._held.discard(entry_id)

    async def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        await joined(self._thread, self._renew_seconds)

    def _run(self) -> None:
        pause_seconds = self._renew_seconds
        while not self._stop.wait(pause_seconds):
            with self._lock:
                held = list(self._held)
            if not held and not self.trouble:
                continue
            try:
                lost, superseded = self._renewed(held)
            except RedisFailed as error:
                pause_seconds = self._trouble.met(error)
                continue  # we renew first: the reclaimer waits for one lease of unbroken connection
            pause_seconds = self._renew_seconds
            self._trouble.over()
            for entry_id in lost:
                self._lost(entry_id.decode())
            for entry_id in superseded:
                self._tell(self.on_superseded, entry_id.decode())
        self._wire.close()

    def _renewed(self, held: list[str]) -> "list[list[bytes]]":
        """Renews all; returns the entries that are lost and those that are superseded. Raises RedisFailed."""
        keys = (self._stream, self._interrupted)
        command: Command = ("EVALSHA", self._renew.sha1, len(keys), *keys, self._group, self._consumer, *held)
        answer = self._wire.call([command])[0]
        if isinstance(answer, ResponseError):
            self._wire.close()  # a new connection loads the scripts again, and may do what this one may not
            raise failure(answer)
        return cast("list[list[bytes]]", answer)

    def _lost(self, entry_id: str) -> None:
        with self._lock:
            if entry_id not in self._held:
                return  # it ended while we asked
            self._held.discard(entry_id)
        self._tell(self.on_lost, entry_id)

    def _tell(self, callback: Callable[[str], None], entry_id: str) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, entry_id)

    def _tell_trouble(self, who: str, reason: str) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.on_trouble, who, reason)


def _nobody_asked(_entry_id: str) -> None:
    """Does nothing; used until a callback is set."""


def _nobody_listens(_who: str, _reason: str) -> None:
    """Does nothing; used until a callback is set."""
