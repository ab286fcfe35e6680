"""When a daily reminder is due, across daylight saving. Pure: times in, times out; Unix times in milliseconds.

It is due once a local date. Where its time does not exist on a date, since the clocks are put forward over it, it is due in the first
valid minute after; where it exists twice, the first time. On a date that has no such minute (none at all, or the gap goes on to midnight)
it is not due.
"""

import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta

import msgspec

_AT = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
MINUTE = timedelta(minutes=1)
MOST_DATES = 400
"""Dates that are looked at for the next one that has a due time: at most two in a row have none in any zone's history."""


class NoSuchTime(ValueError):
    """A time of day or a time zone that does not exist; the text names it and what helps."""


class Daily(msgspec.Struct, frozen=True, array_like=True):
    """A time of day, `HH:MM`, in a time zone of the IANA's list, such as `Europe/Berlin`."""

    at: str
    tz: str

    def check(self) -> None:
        """Raises NoSuchTime if the time of day or the zone does not exist here."""
        self._time()
        zone_of(self.tz)

    def next_after(self, moment_ms: int, last: date | None = None) -> tuple[int, date]:
        """Returns when it is due next after `moment_ms`, and on which local date; later than on the date `last`. Raises NoSuchTime."""
        zone, at = zone_of(self.tz), self._time()
        day = datetime.fromtimestamp(moment_ms / 1000, zone).date()
        if last is not None and day <= last:
            day = last + timedelta(days=1)
        for _ in range(MOST_DATES):
            due = _due_on(day, at, zone)
            if due is not None and due > moment_ms:
                return due, day
            day += timedelta(days=1)
        raise NoSuchTime(f"{self.at} in {self.tz} does not come any more")

    def date_of(self, due_ms: int) -> date:
        """Returns the local date of a time."""
        return datetime.fromtimestamp(due_ms / 1000, zone_of(self.tz)).date()

    def _time(self) -> time:
        found = _AT.match(self.at)
        if found is None:
            raise NoSuchTime(f"daily is a time of day from 00:00 to 23:59, not {self.at[:32]!r}")
        return time(int(found[1]), int(found[2]))


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """Returns a time zone by its name. Raises NoSuchTime."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        if not zoneinfo.available_timezones():
            raise NoSuchTime(
                "this machine has no time zones: install its package tzdata, or `pip install tzdata`"
            ) from None
        raise NoSuchTime(
            f"there is no time zone {name[:64]!r}; write it as in the IANA's list, such as Europe/Berlin"
        ) from None


def first_that_exists(at: datetime) -> datetime:
    """Returns a datetime with a time zone; where clocks were put forward over it the first minute after that."""
    while at.astimezone(UTC).astimezone(at.tzinfo).replace(tzinfo=None, fold=0) != at.replace(tzinfo=None, fold=0):
        at = at.replace(second=0, microsecond=0) + MINUTE
    return at


def _due_on(day: date, at: time, zone: zoneinfo.ZoneInfo) -> int | None:
    """Returns when this time of day is on a date, ms; None if the date has no such minute nor a later one."""
    local = datetime.combine(day, at)
    while local.date() == day:
        there = local.replace(tzinfo=zone).astimezone(UTC)  # fold 0: of two the first
        if there.astimezone(zone).replace(tzinfo=None) == local:
            return round(there.timestamp() * 1000)
        local += MINUTE
    return None
