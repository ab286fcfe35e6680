"""Threads that block in Redis: one stream's reader, and the live channel's subscriber.

A read that was cancelled in trio swallows nothing: what the thread has read meanwhile is given to the next read, or handed back
when the reader closes. After an error the reader reads its own pending entries again from 0; a lost group is made again at 0
(DESIGN rule 18).
"""

import queue
import threading
from collections.abc import Callable
from typing import cast

import msgspec
import trio
from redis.exceptions import ResponseError

from bus.client import RedisClient
from bus.wire import RedisUnavailable, Value, Wire, failure

BLOCK_MS = 2000
CLOSE_SECONDS = 5.0
LIVE_RETRY_SECONDS = 0.5


class Entry(msgspec.Struct, frozen=True):
    """One entry of a stream: its id and its fields."""

    id: str
    fields: dict[str, bytes]


class StreamReader:
    """Reads one stream as one consumer of a group."""

    def __init__(self, client: RedisClient, *, stream: str, group: str, consumer: str) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._wire = Wire(client.url, client.scripts, answer_timeout_seconds=None)
        self._requests: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name=f"redis-reader-{group}", daemon=True)
        self._stopping = False
        self._asked = False
        self._arrived = trio.Event()
        self._result: list[Entry] | Exception | None = None
        self._reread_pending = False
        self.groups_made_again = 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def thread_name(self) -> str:
        """As it is named in the process."""
        return self._thread.name

    def start(self) -> None:
        """Start the reader thread."""
        self._thread.start()

    async def make_group(self) -> None:
        """Make the group at 0 if it is not there."""
        try:
            await self._client.command("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except Exception as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int) -> list[Entry]:
        """At least one entry, at most `count` (more, when pending entries are read again); raises RedisUnavailable."""
        if not self._asked:
            self._asked = True
            self._arrived = trio.Event()
            self._requests.put(count)
        await self._arrived.wait()
        self._asked = False
        result, self._result = self._result, None
        if isinstance(result, Exception):
            raise result
        return result or []

    async def close(self) -> list[Entry]:
        """End the thread; what it had read and nobody took."""
        self._stopping = True
        self._requests.put(None)
        with trio.CancelScope(shield=True):
            while self._thread.is_alive():
                if self._wire.client_id:
                    await self._unblock()
                with trio.move_on_after(CLOSE_SECONDS) as scope:
                    await trio.to_thread.run_sync(self._thread.join, 0.05, abandon_on_cancel=True)
                if scope.cancelled_caught:
                    break
            await trio.lowlevel.checkpoint()  # run_sync_soon deliveries come first
        return self._result if isinstance(self._result, list) else []

    async def _unblock(self) -> None:
        try:
            await self._client.command("CLIENT", "UNBLOCK", self._wire.client_id)
        except RedisUnavailable:
            return  # the reader's own read fails too, and ends it

    # The reader thread

    def _run(self) -> None:
        while True:
            count = self._requests.get()
            if count is None:
                break
            result = self._read_until_some(count)
            if result is None:
                break
            try:
                self._token.run_sync_soon(self._deliver, result)
            except trio.RunFinishedError:
                break
        self._wire.close()

    def _read_until_some(self, count: int) -> list[Entry] | Exception | None:
        while not self._stopping:
            try:
                entries = self._read_once(count)
            except Exception as error:  # noqa: BLE001 - handed to the reader's caller
                self._reread_pending = True
                return error
            if entries:
                return entries
        return None

    def _read_once(self, count: int) -> list[Entry]:
        start = "0" if self._reread_pending else ">"
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count)
        answer = self._wire.call([(*command, "BLOCK", BLOCK_MS, "STREAMS", self._stream, start)])[0]
        if isinstance(answer, ResponseError):
            if str(answer).startswith(("NOGROUP", "UNBLOCKED")):
                return self._make_group_again(answer)
            raise failure(answer)
        self._reread_pending = False
        return decode_entries(answer)

    def _make_group_again(self, answer: ResponseError) -> list[Entry]:
        if str(answer).startswith("NOGROUP"):
            self._wire.call([("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")])
            self.groups_made_again += 1
        return []

    def _deliver(self, result: list[Entry] | Exception) -> None:
        self._result = result
        self._arrived.set()


class LiveSubscriber:
    """Hears the live channel; messages are lost while Redis is away, as is their nature."""

    def __init__(self, client: RedisClient, channel: str, on_message: Callable[[bytes], None]) -> None:
        """`on_message` is called in the trio thread."""
        self._channel = channel
        self._on_message = on_message
        self._wire = Wire(client.url, client.scripts, answer_timeout_seconds=BLOCK_MS / 1000)
        self._token = trio.lowlevel.current_trio_token()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-live", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def thread_name(self) -> str:
        """As it is named in the process."""
        return self._thread.name

    def start(self) -> None:
        """Start the subscriber thread."""
        self._thread.start()

    async def close(self) -> None:
        """End the thread."""
        self._stop.set()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join, CLOSE_SECONDS, abandon_on_cancel=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._wire.call([("SUBSCRIBE", self._channel)])
                self._hear()
            except RedisUnavailable:
                self._stop.wait(LIVE_RETRY_SECONDS)
            except trio.RunFinishedError:
                break
        self._wire.close()

    def _hear(self) -> None:
        while not self._stop.is_set():
            message = self._wire.read_for(BLOCK_MS / 1000)
            if isinstance(message, list) and len(message) == 3 and message[0] == b"message":
                self._token.run_sync_soon(self._on_message, cast(bytes, message[2]))


def decode_entries(answer: Value) -> list[Entry]:
    """The entries of an XREADGROUP answer of one stream; an entry that was deleted while pending is left out."""
    if not answer:
        return []
    [[_, raw]] = cast("list[tuple[bytes, list[tuple[bytes, list[bytes] | None]]]]", answer)
    return [
        Entry(entry_id.decode(), {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)})
        for entry_id, flat in raw
        if flat
    ]
