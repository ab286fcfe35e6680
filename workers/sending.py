"""Where a job's replies get their places and leave, one after the other.

A place is the number in the order of sending, or the key that the handler gave; a place that an earlier run of the job has sent
is passed over. After the job is lost to another worker nothing leaves here.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from bus.jobs import Emitted
from bus.records import Job, Reply
from bus.wire import RedisUnavailable
from workers.errors import BadReply
from workers.outlet import Outlet, until_redis_answers

# A stream's end must not hang on a Redis that is away.
ABORT_SECONDS = 1.0
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Sending:
    """One run of one job, seen from what it sends. `lost` is called when another worker has the job."""

    def __init__(
        self,
        job: Job,
        outlet: Outlet,
        *,
        emitted: frozenset[str],
        helpers: trio.Nursery,
        lost: Callable[[], None],
    ) -> None:
        self.job = job
        self.helpers = helpers
        self._outlet = outlet
        self._emitted = emitted
        self._lost = lost
        self._is_lost = False
        self._turn = trio.Lock()
        self._next_number = 0
        self._used_keys: set[str] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the order of sending: first come, first served."""
        async with self._turn:
            yield

    def take_place(self, key: str | None) -> str:
        """The next place; call it in one's turn. Raises BadReply."""
        if key is None:
            place = str(self._next_number)
            self._next_number += 1
            return place
        if not _KEY.fullmatch(key):
            raise BadReply("a key has 1 to 64 characters of A-Z, a-z, 0-9, '_', '.', '-'")
        if key in self._used_keys:
            raise BadReply("this key was used before in this job; the second reply would never be sent")
        self._used_keys.add(key)
        return f"key:{key}"

    def was_emitted(self, place: str) -> bool:
        """Whether an earlier run has sent this place."""
        return place in self._emitted

    async def emit(self, place: str, reply: Reply) -> None:
        """Send, however long Redis is away; nothing if the place was sent or the job is lost."""
        if not self._is_lost and not self.was_emitted(place):
            emitted = await until_redis_answers(lambda: self._outlet.emit(self.job, place, reply))
            if emitted is Emitted.FENCED:
                self._is_lost = True
                self._lost()
        await trio.lowlevel.checkpoint()

    async def show_delta(self, stream_id: str, seq: int, text: str) -> bool:
        """A piece of a stream; False if it could not be shown now."""
        if self._is_lost:
            return True
        try:
            await self._outlet.publish_delta(self.job, stream_id, seq, text)
        except RedisUnavailable:
            return False
        return True

    async def show_typing(self, *, active: bool) -> None:
        """Worth nothing later, so lost when Redis is away."""
        if self._is_lost:
            return
        try:
            await self._outlet.publish_typing(self.job, active)
        except RedisUnavailable:
            return

    async def abort_stream(self) -> None:
        """The stream that was shown will not be ended by a whole text; soon or never."""
        if self._is_lost:
            return
        with trio.move_on_after(ABORT_SECONDS, shield=True):
            try:
                await self._outlet.publish_abort(self.job)
            except RedisUnavailable:
                return  # the relay ends it after half a minute without a delta
