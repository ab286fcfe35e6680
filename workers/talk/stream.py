"""A reply that a person sees grow: merges what is written into deltas, and sends the whole text at the end of the block.

Deltas may be lost, the whole text may not. A run that is broken off ends its stream (the supervisor ends that of a worker that died);
the next run begins another.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from bus.records import ulid
from bus.records.records import RUN, Payload, Reply
from bus.steps.job_steps import Said
from workers.errors import BadReply
from workers.talk.payloads import TEXT_LIMIT_CHARACTERS, check_text
from workers.talk.sending import Sending

# PROTOCOL §5.8: text is merged for at least so long, so that the lengths of tokens do not show.
DELTA_MERGE_SECONDS = 0.2
# PROTOCOL §1: the relay ends a longer stream. Then the rest is only collected, and sent with the whole text.
STREAM_LIMIT_SECONDS = 300.0

# Ten messages; what is longer is no answer, and would fill memory.
MOST_STREAM_CHARACTERS = 1_000_000


class Stream:
    """Made by `chat.stream()`. It takes its place at the beginning of the block and is shown from the first text on."""

    def __init__(self, sending: Sending, *, payloads: Callable[[str], list[Payload]], key: str | None) -> None:
        """`payloads`: makes the messages of a whole text."""
        self._sending = sending
        self._payloads = payloads
        self._key = key
        self._place = ""
        self._parts: list[str] = []
        self._length = 0
        self._is_open = False
        self._show: _Show | None = None

    async def __aenter__(self) -> Self:
        async with self._sending.turn():
            self._place = self._sending.take_place(self._key)
        self._is_open = True
        return self

    @property
    def length(self) -> int:
        """Returns how many characters were written so far."""
        return self._length

    async def write(self, text: str) -> None:
        """Appends to the text. Raises TextTooLong if the whole is over 1,000,000 characters, BadReply outside of the block."""
        if not self._is_open:
            raise BadReply("this stream is not open; write inside its `with` block")
        self._sending.check_open()
        check_text(text, already=self._length, most=MOST_STREAM_CHARACTERS)
        self._length += len(text)
        self._parts.append(text)
        if text and self._show is None and self._may_be_shown():
            self._show = _Show(self._sending)  # before the await: a second writer must not begin another
            await self._begin(self._show)
        if self._show is not None and self._length <= TEXT_LIMIT_CHARACTERS:  # the rest is another message
            self._show.add(text)
        await trio.lowlevel.checkpoint()

    def replace(self, text: str) -> None:
        """Makes this the whole text, whatever was shown while it grew."""
        self._parts, self._length = [text] if text else [], len(text)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if self._show is not None:
            self._show.scope.cancel()
        says_something = bool("".join(self._parts).strip())
        if error is None and says_something:
            await self._send_whole()
        elif self._sending.was_told_to_stop and says_something and not self._sending.was_emitted(self._place):
            self._end_as_stopped()
        elif self._show is not None:
            await self._sending.abort_stream()

    def _end_as_stopped(self) -> None:
        """Has what was written so far stay, in one step with the job's end."""
        self.replace("".join(self._parts).rstrip() + f"\n\n[{self._sending.words.stopped}]")
        for place, reply in self._whole():
            self._sending.say_with_end(place, reply)
        self._sending.says_that_it_stopped = True

    def _may_be_shown(self) -> bool:
        return not self._sending.was_emitted(self._place)

    async def _begin(self, show: "_Show") -> None:
        job = self._sending.job
        start = Reply(kind="stream_start", content_type="text", payload={RUN: job.entry_id}, stream_id=show.stream_id)
        async with self._sending.turn():
            await self._sending.emit(f"{self._place}:start:{job.deliveries}", start)
        self._sending.helpers.start_soon(show.run)

    async def _send_whole(self) -> None:
        async with self._sending.turn():
            for place, reply in self._whole():
                await self._sending.emit(place, reply)

    def _whole(self) -> list[Said]:
        """Returns the messages of the whole text, of which the first ends what is shown."""
        payload, *others = self._payloads("".join(self._parts))
        reply = (
            Reply(kind="message", content_type="text", payload=payload)
            if self._show is None
            else Reply(kind="stream_done", content_type="text", payload=payload, stream_id=self._show.stream_id)
        )
        more = [
            (f"{self._place}~{number}", Reply(kind="message", content_type="text", payload=other))
            for number, other in enumerate(others, start=2)
        ]
        return [(self._place, reply), *more]


class _Show:
    """Sends the deltas of one stream, in a task: what has gathered, not more often than the merge time."""

    def __init__(self, sending: Sending) -> None:
        self.stream_id = ulid.new()
        self.scope = trio.CancelScope()
        self._sending = sending
        self._gathered = ""
        self._more = trio.Event()
        self._seq = 0

    def add(self, text: str) -> None:
        self._gathered += text
        if self._gathered:
            self._more.set()

    async def run(self) -> None:
        ends = trio.current_time() + STREAM_LIMIT_SECONDS
        with self.scope:
            while trio.current_time() < ends:
                await self._more.wait()
                await trio.sleep(DELTA_MERGE_SECONDS)
                text, self._gathered, self._more = self._gathered, "", trio.Event()
                if await self._sending.show_delta(self.stream_id, self._seq, text):
                    self._seq += 1
                else:
                    self._gathered = text + self._gathered
                    self._more.set()
