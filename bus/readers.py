"""Those who wait in Redis: one stream's reader, and the live channel's subscriber (a thread).

A read that was cancelled in trio swallows nothing: what Redis answers meanwhile is given to the next read, or handed back
when the reader closes. After an error the reader reads its own pending entries again from 0; a lost group is made again at 0
(DESIGN rule 18).
"""

import contextlib
import threading
from collections.abc import Callable
from typing import cast

import msgspec
import trio
from redis.exceptions import ResponseError

from bus.client import ANSWER_TIMEOUT_SECONDS, RedisClient
from bus.link import Link
from bus.lua import packed
from bus.wire import Answer, RedisFailed, RedisUnavailable, Value, Wire, failure, is_replica

BLOCK_MS = 2000
CLOSE_SECONDS = 5.0
LIVE_RETRY_SECONDS = 0.5


class Entry(msgspec.Struct, frozen=True):
    """One entry of a stream: its id and its fields."""

    id: str
    fields: dict[str, bytes]


class StreamReader:
    """Reads one stream as one consumer of a group, over a connection of its own."""

    def __init__(self, client: RedisClient, *, stream: str, group: str, consumer: str) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._link = Link(client.url, client.scripts)
        self._is_closed = False
        self._is_asked = False
        self._is_being_read = False
        self._reread_pending = False
        self.groups_made_again = 0

    @property
    def is_alive(self) -> bool:
        """Whether it can be read from: it has no thread that could end."""
        return not self._is_closed

    @property
    def thread_name(self) -> str:
        """What it is called where threads are listed."""
        return f"redis-reader-{self._group}"

    def start(self) -> None:
        """Nothing is to be started; the first read connects."""

    async def make_group(self) -> None:
        """Make the group at 0 if it is not there."""
        try:
            await self._client.command("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except Exception as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int) -> list[Entry]:
        """At least one entry, at most `count` (more, when pending entries are read again); raises RedisUnavailable."""
        self._is_being_read = True
        try:
            while not (entries := await self._read_once(count)):
                pass
        except Exception:
            self._is_asked = False
            self._reread_pending = True
            raise
        finally:
            self._is_being_read = False
        return entries

    async def close(self) -> list[Entry]:
        """Close the connection; what it had read and nobody took."""
        if self._is_closed:
            return []
        self._is_closed = True
        leftover: list[Entry] = []
        with trio.move_on_after(CLOSE_SECONDS, shield=True), contextlib.suppress(RedisFailed):
            if self._is_asked:
                await self._client.command("CLIENT", "UNBLOCK", self._link.client_id)
            if self._is_asked and not self._is_being_read:
                leftover = self._decode(await self._answer())
        self._link.end()
        return leftover

    async def _read_once(self, count: int) -> list[Entry]:
        if self._is_closed:
            raise RedisUnavailable("the reader is closed")
        if not self._is_asked:
            await self._ask(count)
        answer = await self._answer()
        if isinstance(answer, ResponseError):
            if str(answer).startswith("NOGROUP"):
                await self._make_group_again()
                return []
            if is_replica(answer):
                self._link.close()
            if not str(answer).startswith("UNBLOCKED"):
                raise failure(answer)
        return self._decode(answer)

    async def _ask(self, count: int) -> None:
        if not self._link.is_open:
            await self._link.open()
        start = "0" if self._reread_pending else ">"
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count)
        self._link.write(packed((*command, "BLOCK", BLOCK_MS, "STREAMS", self._stream, start)))
        self._is_asked = True

    async def _answer(self) -> Answer:
        [answer] = await self._link.exchange(BLOCK_MS / 1000 + ANSWER_TIMEOUT_SECONDS)
        self._is_asked = False
        return answer

    def _decode(self, answer: Answer) -> list[Entry]:
        if isinstance(answer, ResponseError):
            return []
        self._reread_pending = False
        return decode_entries(answer)

    async def _make_group_again(self) -> None:
        await self.make_group()
        self.groups_made_again += 1


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
