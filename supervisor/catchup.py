"""Polling (PROTOCOL §3): what was pushed while nobody listened, or out of sequence, is never lost.

The cursor moves once per page, by compare-and-set from the value that the page was asked with, and only when every message of
the page is accepted, known or quarantined (DESIGN rule 2). Pushes never move it.
"""

import math
from datetime import datetime

import structlog
import trio

from bus.store import Store
from bus.wire import RedisFailed
from supervisor.frames import ArtifactResponse, MessageNew
from supervisor.inbound import Inbound, MessageFrame
from supervisor.metrics import Metrics
from supervisor.rest import Page, Rest, RestFailed

INTERVAL_SECONDS = 60.0
RETRY_SECONDS = 1.0

log = structlog.get_logger()


class Catchup:
    """Polls for one supervisor."""

    def __init__(self, store: Store, rest: Rest, inbound: Inbound, metrics: Metrics, first_sync_seconds: int) -> None:
        self._store = store
        self._rest = rest
        self._inbound = inbound
        self._metrics = metrics
        self._first_sync_ms = first_sync_seconds * 1000
        self._wanted = trio.Event()
        self._first_sync_ended = False

    def ask(self) -> None:
        """Poll as soon as possible."""
        self._wanted.set()

    async def run(self) -> None:
        """Once a minute and whenever asked, until cancelled."""
        while True:
            with trio.move_on_after(INTERVAL_SECONDS):
                await self._wanted.wait()
            self._wanted = trio.Event()
            retry_seconds = RETRY_SECONDS
            try:
                complete = await self.poll_to_the_present()
            except (RestFailed, RedisFailed) as error:
                log.warning("poll: failed", reason=str(error))
                complete = False
                if isinstance(error, RestFailed):
                    retry_seconds = max(RETRY_SECONDS, error.retry_after_seconds)
            if not complete:
                self._inbound.polled(has_caught_up=False)
                self._wanted.set()
                await trio.sleep(retry_seconds)

    async def poll_to_the_present(self) -> bool:
        """Take in everything after the cursor; False when a page could not be taken in whole.

        The end is an empty page, or one whose last message was pushed since we began: while people talk there may never be an empty one.
        """
        with self._inbound.noting_pushes() as pushed:
            while True:
                cursor = await self._store.cursor()
                page = await self._rest.poll(cursor)
                if page.frames and not await self._take_in(page):
                    return False
                if page.frames and page.last_id is None:
                    log.warning("poll: a page without ids", frames=len(page.frames))
                    self._inbound.polled(has_caught_up=False)
                    return True
                if page.last_id is not None:
                    await self._store.advance_cursor(cursor, page.last_id)
                if not page.frames or page.last_id in pushed:
                    self._inbound.polled(has_caught_up=True)
                    await self._end_first_sync()
                    return True

    async def _take_in(self, page: Page) -> bool:
        conversations: dict[str, list[MessageFrame]] = {}
        skip_before_ms = await self._skip_before_ms()
        for frame in page.frames:
            if frame is None:
                self._metrics.frames_dropped.labels("malformed").inc()
            elif not isinstance(frame, MessageNew | ArtifactResponse):
                self._metrics.frames_dropped.labels("unknown_type").inc()
            elif _created_ms(frame) < skip_before_ms:
                self._metrics.frames_dropped.labels("before_first_start").inc()
            else:
                conversations.setdefault(frame.conversation_id, []).append(frame)
        taken: list[bool] = []
        async with trio.open_nursery() as nursery:
            for frames in conversations.values():
                nursery.start_soon(self._take_in_order, frames, taken)
        return all(taken)

    async def _skip_before_ms(self) -> float:
        """Until the first sync has ended, what is older than HASHEE_FIRST_SYNC_SECONDS was never meant for this agent."""
        if self._first_sync_ended:
            return -math.inf
        began_ms = await self._store.first_sync_began_ms()
        return -math.inf if began_ms is None else began_ms - self._first_sync_ms

    async def _end_first_sync(self) -> None:
        if not self._first_sync_ended:
            await self._store.end_first_sync()
            self._first_sync_ended = True

    async def _take_in_order(self, frames: list[MessageFrame], taken: list[bool]) -> None:
        """One conversation's messages of a page; after one that could not be taken in, the others wait for it (P3)."""
        for frame in frames:
            outcome = await self._inbound.poll(frame)
            if outcome is None or not outcome.is_settled:
                taken.append(False)
                return
        taken.append(True)


def _created_ms(frame: MessageFrame) -> float:
    """When the relay stored it; what has no readable time is as good as new."""
    try:
        return datetime.fromisoformat(frame.created_at).timestamp() * 1000
    except (ValueError, OverflowError):
        return math.inf
