"""Blocking reads from Redis: the reader of one stream, and the live channel's subscriber (a thread).

Cancelling a read loses no entry: what Redis answers meanwhile goes to the next read, or is returned when the reader closes. After an
error the reader reads its own pending entries again from 0, page by page until there are none; a lost group is made again at 0
(DESIGN rule 18). Whatever Redis answers, both go on, report what is wrong once, and show it as `trouble`.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import cast

import msgspec
import trio
from redis.exceptions import ResponseError

from bus.transport.client import RedisClient
from bus.transport.joined import joined
from bus.transport.link import Link
from bus.transport.lua import packed
from bus.transport.trouble import Tell, Trouble
from bus.transport.wire import Answer, RedisFailed, RedisUnavailable, Value, Wire, failure, needs_new_connection

BLOCK_MS = 2000
FROM_THE_FIRST = "0"
CLOSE_SECONDS = 5.0
# After so many times BLOCK_MS without a message, and without an answer when asked, the connection counts as dead.
SIGNS_MISSED = 3


class StreamEntry(msgspec.Struct, frozen=True):
    """One entry of a stream: its id and its fields."""

    id: str
    fields: dict[str, bytes]

    @property
    def record(self) -> bytes:
        """Its record; b"" where it has none, which no decoder reads."""
        return self.fields.get("r", b"")


class RedisStreamReader:
    """Reads one stream as one consumer of a group, over a connection of its own."""

    def __init__(
        self, client: RedisClient, *, stream: str, group: str, consumer: str, block_ms: int = BLOCK_MS
    ) -> None:
        """`block_ms`: for so long Redis waits for an entry before it answers that there is none."""
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._block_ms = block_ms
        self._link = Link(client.url, client.scripts)
        self._is_closed = False
        self._is_asked = False
        self._is_being_read = False
        self._reread_from: str | None = None
        """The entry behind which pending entries of our own may be unread; None if there are none."""
        self._is_rereading = False
        self._trouble = Trouble(self.thread_name, self._tell_trouble)
        self.on_trouble: Tell = _nobody_listens
        self.groups_made_again = 0

    @property
    def is_alive(self) -> bool:
        """Always True: it has no thread that could end."""
        return not self._is_closed

    @property
    def thread_name(self) -> str:
        """Its name in lists of threads."""
        return f"redis-reader-{self._group}"

    @property
    def trouble(self) -> str:
        """The reason why it cannot read now; '' while it can."""
        return self._trouble.reason

    def start(self) -> None:
        """Does nothing; the first read connects."""

    async def make_group(self) -> None:
        """Makes the group at 0 if it does not exist."""
        try:
            await self._client.command("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except Exception as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int) -> list[StreamEntry]:
        """Returns one to `count` entries. Raises RedisFailed; the next read begins with entries that were read and may not have arrived."""
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
        """Closes the connection; returns entries that it had read and nobody took."""
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
            )  # an ASK is waited out: entries read there could not be finished before the slot has moved
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
        self._link.write(packed((*command, "BLOCK", self._block_ms, "STREAMS", self._stream, start)))
        self._is_asked = True

    async def _answer(self) -> Answer:
        [answer] = await self._link.exchange(self._block_ms / 1000 + self._client.answer_timeout_seconds)
        self._is_asked = False
        return answer

    def _decode(self, answer: Answer) -> list[StreamEntry]:
        if isinstance(answer, ResponseError):
            return []
        self._trouble.over()
        if self._is_rereading and self._reread_from is not None:
            # One page of pending entries; the next read asks for those behind it, until there are none.
            self._reread_from = last_entry_id(answer)
        return decode_entries(answer)

    async def _make_group_again(self) -> None:
        await self.make_group()
        self.groups_made_again += 1


class LiveSubscriber:
    """Hears the live channel; while Redis is away or refuses, messages are lost, which their senders expect."""

    def __init__(
        self, client: RedisClient, channel: str, on_message: Callable[[bytes], None], *, block_ms: int = BLOCK_MS
    ) -> None:
        """`on_message` is called in the trio thread. `block_ms`: after so long without a message Redis is asked for a sign of life."""
        self._channel = channel
        self._on_message = on_message
        self._block_seconds = block_ms / 1000
        self._wire = Wire(client.url, client.scripts, answer_timeout_seconds=self._block_seconds)
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
        """The reason why nothing can be heard now; '' while it can."""
        return self._trouble.reason

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        await joined(self._thread, CLOSE_SECONDS)

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
        """Hears messages until told to stop. Raises RedisFailed, also if an open connection gives no sign of life."""
        unanswered = 0
        while not self._stop.is_set():
            message = self._wire.read_for(self._block_seconds)
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
    """Does nothing; used until a callback is set."""


def decode_entries(answer: Value) -> list[StreamEntry]:
    """Returns the entries of an XREADGROUP answer of one stream, without those that were deleted while pending."""
    if not answer:
        return []
    [[_, raw]] = cast("list[tuple[bytes, list[tuple[bytes, list[bytes] | None]]]]", answer)
    return [
        StreamEntry(entry_id.decode(), {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)})
        for entry_id, flat in raw
        if flat
    ]


def last_entry_id(answer: Value) -> str | None:
    """Returns the id of the last entry of an XREADGROUP answer, deleted or not; None if there is no entry."""
    if not answer:
        return None
    [[_, raw]] = cast("list[tuple[bytes, list[tuple[bytes, object]]]]", answer)
    return raw[-1][0].decode() if raw else None
