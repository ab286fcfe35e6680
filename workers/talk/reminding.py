"""Reminders that a run sets and drops. They are written with the end of its job, or not at all; each becomes a job when it is due.

What is due when is worked out by Redis' clock, which is the one that fires it. In a thread of several jobs a reminder is set once: the
thread has noted by which of them.
"""

import re
from datetime import UTC, datetime, timedelta

import msgspec

from bus.records.daily import Daily, NoSuchTime, first_that_exists
from bus.records.records import GROUP, InboundMessage, Job, Payload, PlacedKind
from bus.records.timers import Timer, keyed_id
from bus.steps.timers import MOST_TIMERS
from host.unreadable import UNWRITABLE
from workers.errors import BadReminder, TooManyReminders
from workers.kept.outlet import Outlet, until_redis_answers
from workers.kept.thread import ThreadRun

MOST_DATA_BYTES = 4096
"""Of one reminder, as msgpack; what is larger belongs into a database, and its id into the reminder."""
MOST_KEY_CHARACTERS = 200
LONGEST = timedelta(days=366 * 100)
NAME = re.compile(r"[A-Za-z0-9_.-]{1,48}")
MOST_MEMBERS = 50
SOON_MS = 3_600_000
"""What is due so soon may be set and told within a span that Redis loses, and be set again for another time: its words have the time of the message."""


class Reminding:
    """The reminders of one run. `message`: what its handler was given, which says whom the conversation is with."""

    def __init__(self, thread: ThreadRun, outlet: Outlet, message: InboundMessage) -> None:
        self._thread = thread
        self._outlet = outlet
        self._message = message
        self._set: set[str] = set()

    async def remind(
        self,
        name: str,
        *,
        after: timedelta | None = None,
        at: datetime | None = None,
        daily: str | None = None,
        tz: str | None = None,
        data: object = None,
        key: str | None = None,
    ) -> None:
        """As Chat.remind."""
        self._thread.check_open()
        check_name(name)
        every_day = _when(after, at, daily, tz)
        packed = _packed(name, data)
        step = self._thread.begin(f"remind/{name}", once=False)
        timer_id = self._id(name if daily is not None and key is None else key, step.name)
        if step.is_done and step.result(_set_by) != self._thread.job.job_id:
            return  # an earlier job of this thread has set it, with its end
        there = await until_redis_answers(lambda: self._outlet.timers_there(self._thread.job, timer_id))
        if not there.is_there and timer_id not in self._set:
            if there.count + len(self._set) >= MOST_TIMERS:
                raise TooManyReminders(MOST_TIMERS)
            self._set.add(timer_id)
        due_ms = self._due_ms(there.now_ms, after, at, every_day)
        timer = timer_for(
            self._message, self._thread.job, timer_id, due_ms, kind="reminder", name=name, data=packed, daily=every_day
        )
        record = self._outlet.seal_timer(timer)
        self._thread.effects.add("timer", timer_id, due_ms, record)
        if not step.is_done:
            await self._thread.keep(step, _set_by, self._thread.job.job_id, once=False)

    async def forget(self, key: str) -> None:
        """As Chat.forget_reminder."""
        self._thread.check_open()
        timer_id = self._id(key, "")
        step = self._thread.begin(f"forget/{timer_id}", once=False)
        if step.is_done and step.result(_set_by) != self._thread.job.job_id:
            return
        self._thread.effects.add("drop_timer", timer_id)
        if not step.is_done:
            await self._thread.keep(step, _set_by, self._thread.job.job_id, once=False)

    def _id(self, key: str | None, step: str) -> str:
        """Returns the id under a key, else one of this reminder alone: the same in every run, also after Redis went back."""
        if key is None:
            return keyed_id(self._thread.job.thread_id, step)
        if not isinstance(key, str) or not 1 <= len(key) <= MOST_KEY_CHARACTERS:
            raise BadReminder(f"a reminder's key is a text of 1 to {MOST_KEY_CHARACTERS} characters")
        return keyed_id(self._thread.job.conversation_id, key)

    def _due_ms(self, now_ms: int, after: timedelta | None, at: datetime | None, daily: Daily | None) -> int:
        if after is not None:
            return now_ms + max(1, round(after / timedelta(milliseconds=1)))
        if at is not None:
            due_ms = round(first_that_exists(at).timestamp() * 1000)
            # A second run of the job comes later than the first: then it is due at once.
            if due_ms <= min(now_ms, self._thread.job.accepted_ms):
                past = timedelta(milliseconds=now_ms - due_ms)
                raise BadReminder(f"at={at.isoformat()} is in the past, by {past}: remind at a time that is to come")
            return due_ms
        if daily is None:
            raise ValueError("after, at or daily")
        return daily.next_after(now_ms)[0]


def timer_for(
    message: InboundMessage,
    job: Job,
    timer_id: str,
    due_ms: int,
    *,
    kind: PlacedKind,
    name: str,
    data: bytes = b"",
    daily: Daily | None = None,
) -> Timer:
    """Returns a timer of the job's conversation, for whom the message is with."""
    is_group = message.conversation_type == GROUP
    return Timer(
        id=timer_id,
        conversation_id=job.conversation_id,
        due_ms=due_ms,
        kind=kind,
        name=name,
        data=data,
        daily=daily,
        conversation_type=message.conversation_type,
        sender_id="" if is_group else message.sender_id,
        sender_type=message.sender_type,
        sender_display_name=None if is_group else message.sender_display_name,
        hop_count=message.hop_count,
        group_metadata=_without_much(message.group_metadata),
        set_by=job.short_id,
        message_ms=job.message_ms if due_ms - job.accepted_ms <= SOON_MS else 0,
    )


def check_name(name: object) -> None:
    """Raises BadReminder for what is no reminder's name."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadReminder("a reminder's name has 1 to 48 characters of A-Z, a-z, 0-9, '_', '.', '-'")


def _when(after: timedelta | None, at: datetime | None, daily: str | None, tz: str | None) -> Daily | None:
    """Returns the time of day of a daily one. Raises BadReminder unless exactly one of them says when."""
    if sum(one is not None for one in (after, at, daily)) != 1:
        raise BadReminder("say when with one of after=timedelta(…), at=datetime(…) or daily='08:00'")
    if tz is not None and daily is None:
        raise BadReminder("tz= belongs to daily=; the datetime of at= has its own time zone")
    if after is not None and (not isinstance(after, timedelta) or not timedelta(0) < after <= LONGEST):
        raise BadReminder(f"after is a timedelta of more than nothing and at most 100 years, not {after!r}")
    if at is not None:
        if not isinstance(at, datetime):
            raise BadReminder(f"at is a datetime, not {type(at).__name__}")
        if at.utcoffset() is None:
            raise BadReminder("the datetime of at= has no time zone: at=datetime(…, tzinfo=ZoneInfo('Europe/Berlin'))")
        if at - datetime.now(UTC) > LONGEST:
            raise BadReminder("at is at most 100 years from now")
    if daily is None:
        return None
    if tz is None:
        raise BadReminder("say in which time zone: daily='08:00', tz='Europe/Berlin'")
    if not isinstance(daily, str) or not isinstance(tz, str):
        raise BadReminder("daily and tz are texts: daily='08:00', tz='Europe/Berlin'")
    every_day = Daily(daily, tz)
    try:
        every_day.check()
    except NoSuchTime as error:
        raise BadReminder(str(error)) from None
    return every_day


def _packed(name: str, data: object) -> bytes:
    try:
        packed = msgspec.msgpack.encode(data)
    except UNWRITABLE:  # without the cause, which may quote the data
        raise BadReminder(
            f"the data of reminder {name!r} cannot be kept: use numbers, texts, lists, dicts, Structs"
        ) from None
    if len(packed) > MOST_DATA_BYTES:
        raise BadReminder(
            f"the data of reminder {name!r} has {len(packed)} bytes, at most {MOST_DATA_BYTES} are kept: "
            "put it into a database, and its id into the reminder"
        )
    return packed


def _without_much(metadata: Payload | None) -> Payload | None:
    """Returns the members of a group, as far as they are few; a group of thousands is not kept with each of its reminders."""
    members = (metadata or {}).get("members")
    return {"members": members} if isinstance(members, list) and len(members) <= MOST_MEMBERS else None


def _set_by() -> str:
    """Names what is noted of a reminder: the job that has set it."""
    raise NotImplementedError
