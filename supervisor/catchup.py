"""Polling (PROTOCOL §3): what was pushed while nobody listened, or out of sequence, is never lost.

The cursor moves once per page, by compare-and-set from the value that the page was asked with, and only when every message of
the page is accepted, known or quarantined (DESIGN rule 2). Pushes never move it.
"""

from datetime import datetime

import structlog
import trio

from bus.client import RedisUnavailable
from bus.store import Intake, Store, now_ms
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

    def ask(self) -> None:
        """Poll as soon as possible."""
        self._wanted.set()

    async def run(self) -> None:
        """Once a minute and whenever asked, until cancelled."""
        while True:
            with trio.move_on_after(INTERVAL_SECONDS):
                await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                complete = await self.poll_until_empty()
            except (RestFailed, RedisUnavailable) as error:
                log.warning("poll: failed", reason=str(error))
                complete = False
            if not complete:
                self._wanted.set()
                await trio.sleep(RETRY_SECONDS)

    async def poll_until_empty(self) -> bool:
        """Take in everything after the cursor; False when a page could not be taken in whole."""
        while True:
            cursor = await self._store.cursor()
            page = await self._rest.poll(cursor)
            if page.last_id is None:
                return True
            if not await self._take_in(page, is_first=cursor is None):
                return False
            await self._store.advance_cursor(cursor, page.last_id)

    async def _take_in(self, page: Page, *, is_first: bool) -> bool:
        frames: list[MessageFrame] = []
        for frame in page.frames:
            if not isinstance(frame, MessageNew | ArtifactResponse):
                self._metrics.frames_dropped.labels("unknown_type").inc()
            elif is_first and self._is_old(frame):
                self._metrics.frames_dropped.labels("before_first_start").inc()
            else:
                frames.append(frame)
        polled = [await self._inbound.poll(frame) for frame in frames]
        for item in polled:
            await item.done.wait()
        return all(item.outcome is not None and item.outcome is not Intake.GAP for item in polled)

    def _is_old(self, frame: MessageFrame) -> bool:
        try:
            created_ms = datetime.fromisoformat(frame.created_at).timestamp() * 1000
        except ValueError:
            return False
        return now_ms() - created_ms > self._first_sync_ms
