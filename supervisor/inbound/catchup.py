"""Polls for what was pushed while nobody listened, or out of sequence, so that it is never lost (PROTOCOL §3).

The cursor moves once per page, by compare-and-set from the value that the page was asked with, and only when every message of
the page is accepted, known or quarantined (DESIGN rule 2). Pushes never move it. A page that leads nowhere ends the poll, by name.
"""

import enum
import math
import time
from contextlib import suppress
from datetime import datetime

import structlog
import trio

from bus.steps.store import InboundStore
from bus.steps.work_lease import WorkLease
from bus.transport.wire import RedisFailed
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.incoming import MessageFrame
from supervisor.observe.health import Check
from supervisor.observe.metrics import Metrics
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.relay.ids import is_id
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.rest import Page, Rest, RestFailed
from supervisor.settings.pauses import PAUSES, Pauses

INTERVAL_SECONDS = 60.0
"""Between two polls when nobody asks for one: what was pushed into a dying connection comes so late at most."""

MOST_RETRY_SECONDS = 60.0
"""The longest pause: it doubles while the relay's answers lead nowhere, so that a mistake of the relay's is not asked for 200 times a second."""

OWN_RETRY_SECONDS = 1.0
"""The pause while Redis does not take in a page or one of its messages, so that polling goes on soon after that ends. While Redis is nearly
full a growing pause follows, which ends with that: a page would be read for nothing.
"""

DEAF_AFTER_SECONDS = 180.0
"""Without progress for so long, three polls, we are not ready: what was pushed into a dying connection has not come since."""

MISSED_SECONDS = 30.0
"""What was pushed and not taken in waits for a poll; without progress for so long, twice as long as an answer may take, we are not ready: the
conversations that it belongs to are deaf.
"""

POLLS_TO_NOWHERE = 2
"""After so many polls in a row that a page led nowhere, and none of which got on, we are not ready: waiting longer shows nothing new."""

TURN_MS = 3000
"""One page may take so long before another supervisor no longer waits for it. That is also the wait after one was killed on another host."""

TURN_LOOK_SECONDS = 0.1
"""Between two looks whether another supervisor still reads pages."""

UNKNOWN_CURSOR = frozenset((400, 404, 410))
"""Statuses with which a relay says that it does not know a cursor."""

log = structlog.get_logger()


class StoppedBy(enum.Enum):
    """Why a poll ended, in words for people."""

    PRESENT = ""
    NOT_TAKEN = "a message could not be taken in"
    REDIS = "Redis is away"
    FAILED = "the relay does not answer"
    NO_IDS = "the relay's page has no message_id to go on from"
    NOWHERE = "the relay's page leads back to where polling was: it heeds no cursor"


class Catchup:
    """Polls for one supervisor."""

    def __init__(
        self,
        store: InboundStore,
        lease: WorkLease,
        *,
        rest: Rest,
        inbound: Inbound,
        metrics: Metrics,
        polls: PollWish,
        first_sync_seconds: int,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._store = store
        self._lease = lease
        self._rest = rest
        self._inbound = inbound
        self._metrics = metrics
        self._first_sync_ms = first_sync_seconds * 1000
        self._polls = polls
        self._pauses = pauses
        self._connected = trio.Event()
        self._first_sync_ended = False
        self._caught_up_at: float | None = None
        self._has_caught_up_once = trio.Event()
        self._moved_at = trio.current_time()
        self._problem = ""
        self._led_nowhere = 0

    def connected(self) -> None:
        """Called with each new connection: another relay may answer now, so the pause after a failure ends."""
        self._connected.set()

    async def caught_up(self) -> None:
        """Waits until everything that the relay had when we began was taken in."""
        await self._has_caught_up_once.wait()

    def check(self) -> Check:
        """Returns the state for readiness: whether polling makes progress. A pushed message alone does not prove it."""
        now = trio.current_time()
        ago = "not caught up yet" if self._caught_up_at is None else f"caught up {now - self._caught_up_at:.0f} s ago"
        missed_seconds = now - max(self._polls.missed_since, self._moved_at)
        if is_missed := missed_seconds >= MISSED_SECONDS:
            ago += f", and messages have waited for a poll for {missed_seconds:.0f} s"
        moves = now - self._moved_at < DEAF_AFTER_SECONDS and self._led_nowhere < POLLS_TO_NOWHERE
        return Check(
            "catch-up", ok=moves and not is_missed, detail=ago + (f": {self._problem}" if self._problem else "")
        )

    async def run(self) -> None:
        """Polls once a minute and whenever asked, until cancelled."""
        pause = holding_pause = self._pauses.poll_retry
        redis_trouble = ""
        while True:
            with trio.move_on_after(INTERVAL_SECONDS):
                await self._polls.wait()
            self._polls.begin()
            self._connected = trio.Event()
            at_least, moved_before = 0.0, self._moved_at
            try:
                stopped_by = await self.poll()
            except RedisFailed as error:
                if error.reason != redis_trouble:  # which lasts, while this is tried each second
                    log.warning("poll: failed", reason=str(error))
                redis_trouble = error.reason
                stopped_by = StoppedBy.REDIS
            except RestFailed as error:
                log.warning("poll: failed", reason=str(error))
                stopped_by, at_least = StoppedBy.FAILED, error.retry_after_seconds
            self._problem = stopped_by.value
            self._note_where_it_led(stopped_by, has_moved=self._moved_at != moved_before)
            if stopped_by is not StoppedBy.REDIS:
                redis_trouble = ""
            if stopped_by is StoppedBy.PRESENT:
                self._polls.served()
                pause = holding_pause = self._pauses.poll_retry
                continue
            self._inbound.unpolled.polled(has_caught_up=False)
            self._polls.ask()
            if stopped_by in (StoppedBy.REDIS, StoppedBy.NOT_TAKEN):
                await trio.sleep(OWN_RETRY_SECONDS)
                with trio.move_on_after(holding_pause):
                    await self._inbound.wait_while_paused()
                holding_pause = min(2 * holding_pause, MOST_RETRY_SECONDS)
                continue
            if stopped_by is not StoppedBy.FAILED:
                log.warning("poll: stopped", reason=stopped_by.value, again_in_seconds=pause)
            with trio.move_on_after(max(pause, at_least)):
                await self._connected.wait()
            pause = min(2 * pause, MOST_RETRY_SECONDS)

    def _note_where_it_led(self, stopped_by: StoppedBy, *, has_moved: bool) -> None:
        """Counts the polls in a row that a page of the relay's led nowhere. What fails otherwise tells nothing of its pages."""
        if has_moved or stopped_by is StoppedBy.PRESENT:
            self._led_nowhere = 0
        elif stopped_by in (StoppedBy.NOWHERE, StoppedBy.NO_IDS):
            self._led_nowhere += 1

    async def poll_to_the_present(self) -> bool:
        """Takes in everything after the cursor. False if a page could not be taken in whole, or leads nowhere."""
        return await self.poll() is StoppedBy.PRESENT

    async def poll(self) -> StoppedBy:
        """Reads page after page to the present, and returns why it ended. Each page must lead to where none was asked for yet.

        Another supervisor may move the cursor meanwhile, into the midst of a page that we have read: a place like any other. The present is
        an empty page, or one whose last message was pushed since we began: while people talk there may never be an empty one.
        Raises RedisFailed, RestFailed.
        """
        try:
            return await self._pages()
        finally:
            with suppress(RedisFailed):  # it ends by itself
                await self._lease.leave()

    async def _pages(self) -> StoppedBy:
        asked = set[str | None]()
        with self._inbound.noting_pushes() as pushed:
            while True:
                await self._wait_for_turn()
                cursor = await self._store.cursor()
                page = await self._page_after(cursor)
                if page.frames and page.last_id is None:
                    return StoppedBy.NO_IDS
                is_only_the_cursor = len(page.frames) == 1 and page.last_id == cursor
                if not page.frames or is_only_the_cursor:
                    return await self._has_caught_up()
                if cursor in asked or page.last_id in (cursor, *asked):
                    return StoppedBy.NOWHERE
                asked.add(cursor)
                if not await self._take_in(page):
                    return StoppedBy.NOT_TAKEN
                if page.last_id is not None:
                    await self._store.advance_cursor(cursor, page.last_id)
                self._moved_at = trio.current_time()
                if page.last_id in pushed:
                    return await self._has_caught_up()

    async def _wait_for_turn(self) -> None:
        """Waits until no other supervisor reads pages: two would read the same ones, and its progress moves the cursor for us too."""
        seen = await self._store.cursor()
        while not await self._lease.hold(TURN_MS):
            cursor = await self._store.cursor()
            if cursor != seen:
                seen, self._moved_at = cursor, trio.current_time()
            await trio.sleep(TURN_LOOK_SECONDS)

    async def _page_after(self, cursor: str | None) -> Page:
        """Fetches the page after the cursor; the oldest page if the relay does not know the cursor (it keeps messages only so long)."""
        if cursor is None or not is_id(cursor):
            return await self._rest.poll(None)
        try:
            return await self._rest.poll(cursor)
        except RestFailed as error:
            if error.status not in UNKNOWN_CURSOR:
                raise
            log.warning("poll: the relay does not know the cursor, so it is asked for the oldest", reason=str(error))
            return await self._rest.poll(None)

    async def _has_caught_up(self) -> StoppedBy:
        self._inbound.unpolled.polled(has_caught_up=True)
        await self._end_first_sync()
        self._caught_up_at = self._moved_at = trio.current_time()
        self._has_caught_up_once.set()
        self._metrics.caught_up.set(time.time())
        return StoppedBy.PRESENT

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
        """Returns the time (ms) before which messages were never meant for this agent: HASHEE_FIRST_SYNC_SECONDS before its first start, until
        the first sync has ended.
        """
        if self._first_sync_ended:
            return -math.inf
        began_ms = await self._store.first_sync_began_ms()
        return -math.inf if began_ms is None else began_ms - self._first_sync_ms

    async def _end_first_sync(self) -> None:
        if not self._first_sync_ended:
            await self._store.end_first_sync()
            self._first_sync_ended = True

    async def _take_in_order(self, frames: list[MessageFrame], taken: list[bool]) -> None:
        """Takes in one conversation's messages of a page. After one that could not be taken in, the others wait for it (P3)."""
        for frame in frames:
            outcome = await self._inbound.poll(frame)
            if outcome is None or not outcome.is_settled:
                taken.append(False)
                return
        taken.append(True)


def _created_ms(frame: MessageFrame) -> float:
    """Returns when the relay stored it (ms); infinity, as good as new, if it has no readable time."""
    try:
        return datetime.fromisoformat(frame.created_at).timestamp() * 1000
    except (ValueError, OverflowError):
        return math.inf
