"""Those who wait in Redis: one stream's reader, and the live channel's subscriber (a thread).

A read that was cancelled in trio swallows nothing: what Redis answers meanwhile is given to the next read, or handed back
when the reader closes. After an error the reader reads its own pending entries again from 0, page by page until there are none; a lost
group is made again at 0 (DESIGN rule 18). Whatever Redis answers, both go on, say what is wrong once, and show it as `trouble`.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import cast

import msgspec
import trio
from redis.exceptions import ResponseError

from bus.transport.client import ANSWER_TIMEOUT_SECONDS, RedisClient
from bus.transport.link import Link
from bus.transport.lua import packed
from bus.transport.trouble import Tell, Trouble
from bus.transport.wire import Answer, RedisFailed, RedisUnavailable, Value, Wire, failure, needs_new_connection

BLOCK_MS = 2000
FROM_THE_FIRST = "0"
CLOSE_SECONDS = 5.0
# So many times nothing was heard within BLOCK_MS, and no answer to the question after it.
SIGNS_MISSED = 3


class StreamEntry(msgspec.Struct, frozen=True):
    """One entry of a stream: its id and its fields."""

    id: str
    fields: dict[str, bytes]


class RedisStreamReader:
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
        self._reread_from: str | None = None
        """Entries of our own that may lie behind this one, unread; None when there is none."""
        self._is_rereading = False
        self._trouble = Trouble(self.thread_name, self._tell_trouble)
        self.on_trouble: Tell = _nobody_listens
        self.groups_made_again = 0

    @property
    def is_alive(self) -> bool:
        """Whether it can be read from: it has no thread that could end."""
        return not self._is_closed

    @property
    def thread_name(self) -> str:
        """What it is called where threads are listed."""
        return f"redis-reader-{self._group}"

    @property
    def trouble(self) -> str:
        """Why it cannot read now; empty while it can."""
        return self._trouble.reason

    def start(self) -> None:
        """Nothing is to be started; the first read connects."""

    async def make_group(self) -> None:
        """Make the group at 0 if it is not there."""
        try:
            await self._client.command("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except Exception as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int) -> list[StreamEntry]:
        """At least one entry, at most `count`. Raises RedisFailed; the next read begins with what may have been read and not received."""
        self._is_being_read = True
        try:
            while not (entries := await self._read_once(count)):
                pass
        except Exception as error:
            self._is_asked = False
            self._reread_from = FROM_THE_FIRST
            if isinstance(error, RedisFailed):
                self._trouble.met(error)
            raise
        finally:
            self._is_being_read = False
        return entries

    async def close(self) -> list[StreamEntry]:
        """Close the connection; what it had read and nobody took."""
        if self._is_closed:
            return []
        self._is_closed = True
        leftover: list[StreamEntry] = []
        with trio.move_on_after(CLOSE_SECONDS, shield=True), contextlib.suppress(RedisFailed):
            if self._is_asked:
                await self._client.command("CLIENT", "UNBLOCK", self._link.client_id)
            if self._is_asked and not self._is_being_read:
                leftover = self._decode(await self._answer())
        self._link.end()
        return leftover

    def _tell_trouble(self, who: str, reason: str) -> None:
        self.on_trouble(who, reason)

    async def _read_once(self, count: int) -> list[StreamEntry]:
        if self._is_closed:
            raise RedisUnavailable("the reader is closed")
        if not self._is_asked:
            await self._ask(count)
        answer = await self._answer()
        if isinstance(answer, ResponseError):
            if str(answer).startswith("NOGROUP"):
                await self._make_group_again()
                return []
            self._link.moved(
                answer
            )  # an ASK is waited out: what would be read there could not be finished before the slot has moved
            if needs_new_connection(answer):
                self._link.close()
            if not str(answer).startswith("UNBLOCKED"):
                raise failure(answer)
        return self._decode(answer)

    async def _ask(self, count: int) -> None:
        if not self._link.is_open:
            await self._link.open()
        self._is_rereading = self._reread_from is not None
        start = ">" if self._reread_from is None else self._reread_from
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count)
        self._link.write(packed((*command, "BLOCK", BLOCK_MS, "STREAMS", self._stream, start)))
        self._is_asked = True

    async def _answer(self) -> Answer:
        [answer] = await self._link.exchange(BLOCK_MS / 1000 + ANSWER_TIMEOUT_SECONDS)
        self._is_asked = False
        return answer

    def _decode(self, answer: Answer) -> list[StreamEntry]:
        if isinstance(answer, ResponseError):
            return []
        self._trouble.over()
        if self._is_rereading and self._reread_from is not None:
            # One page of them; the next question is for those behind it, until there is none.
            self._reread_from = last_entry_id(answer)
        return decode_entries(answer)

    async def _make_group_again(self) -> None:
        await self.make_group()
        self.groups_made_again += 1


class LiveSubscriber:
    """Hears the live channel; messages are lost while Redis is away or refuses, as is their nature."""

    def __init__(self, client: RedisClient, channel: str, on_message: Callable[[bytes], None]) -> None:
        """`on_message` is called in the trio thread."""
        self._channel = channel
        self._on_message = on_message
        self._wire = Wire(client.url, client.scripts, answer_timeout_seconds=BLOCK_MS / 1000)
        self._token = trio.lowlevel.current_trio_token()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-live", daemon=True)
        self._trouble = Trouble(self._thread.name, self._tell_trouble)
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
        """Why nothing can be heard now; empty while it can."""
        return self._trouble.reason

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
                [answer] = self._wire.call([("SUBSCRIBE", self._channel)])
                if isinstance(answer, ResponseError):
                    raise failure(answer)
                self._trouble.over()
                self._hear()
            except RedisFailed as error:
                self._wire.close()
                self._stop.wait(self._trouble.met(error))
            except trio.RunFinishedError:
                break
        self._wire.close()

    def _hear(self) -> None:
        """Until told to stop. Raises RedisFailed: also when a connection is open and gives no sign of life any more."""
        unanswered = 0
        while not self._stop.is_set():
            message = self._wire.read_for(BLOCK_MS / 1000)
            if message is not None:
                unanswered = 0
            elif unanswered == SIGNS_MISSED:
                raise RedisUnavailable("the live channel is silent, also when asked", "silent")
            else:
                unanswered += 1
                self._wire.ask_for_a_sign()
            if isinstance(message, list) and len(message) == 3 and message[0] == b"message":
                self._token.run_sync_soon(self._on_message, cast(bytes, message[2]))

    def _tell_trouble(self, who: str, reason: str) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.on_trouble, who, reason)


def _nobody_listens(_who: str, _reason: str) -> None:
    """Until the owner wants to hear of trouble."""


def decode_entries(answer: Value) -> list[StreamEntry]:
    """The entries of an XREADGROUP answer of one stream; an entry that was deleted while pending is left out."""
    if not answer:
        return []
    [[_, raw]] = cast("list[tuple[bytes, list[tuple[bytes, list[bytes] | None]]]]", answer)
    return [
        StreamEntry(entry_id.decode(), {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)})
        for entry_id, flat in raw
        if flat
    ]


def last_entry_id(answer: Value) -> str | None:
    """Of the last entry of an XREADGROUP answer, deleted or not; None where there is no entry."""
    if not answer:
        return None
    [[_, raw]] = cast("list[tuple[bytes, list[tuple[bytes, object]]]]", answer)
    return raw[-1][0].decode() if raw else None
