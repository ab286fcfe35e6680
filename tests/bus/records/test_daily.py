"""A daily reminder is due once a local date, at its time or in the first valid minute after, whatever daylight saving does."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.records.daily import Daily, NoSuchTime

pytestmark = pytest.mark.pure

DAY_MS = 86_400_000
# With gaps by day and at midnight, of an hour and of half of one, a date that was left out, and none at all.
ZONES = [
    *(
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Africa/Cairo",
        "America/Havana",
        "Australia/Lord_Howe",
    ),
    *("Pacific/Apia", "Asia/Kolkata", "UTC", "America/Toronto", "Africa/Casablanca", "Pacific/Kwajalein"),
]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def dates_due(daily: Daily, since_ms: int, count: int) -> list[tuple[int, date]]:
    found = [daily.next_after(since_ms)]
    while len(found) < count:
        found.append(daily.next_after(*found[-1]))
    return found


@pytest.mark.parametrize(
    ("at", "tz", "after", "due"),
    [
        ("08:00", "Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-29T08:00+02:00"),
        ("02:30", "Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-29T03:00+02:00"),  # 02:00 to 03:00 is left out
        ("02:00", "Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-29T03:00+02:00"),
        ("03:00", "Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-29T03:00+02:00"),
        ("02:30", "Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-25T02:30+02:00"),  # twice: the first
        ("02:30", "Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),  # and not the second
        ("00:15", "America/Havana", "2026-03-07T12:00-05:00", "2026-03-08T01:00-04:00"),  # a gap at midnight
        ("02:10", "Australia/Lord_Howe", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00"),  # of half an hour
        ("08:00", "Pacific/Apia", "2011-12-29T12:00-10:00", "2011-12-31T08:00+14:00"),  # 30 December was left out
    ],
)
def test_rule_12_it_is_due_when_clocks_are_put_forward_or_back(at: str, tz: str, after: str, due: str) -> None:
    daily = Daily(at, tz)
    last = daily.date_of(ms(after)) if after == "2026-10-25T02:30+02:00" else None
    assert daily.next_after(ms(after), last)[0] == ms(due)


@given(
    tz=st.sampled_from(ZONES),
    minute=st.integers(0, 1439),
    since=st.datetimes(datetime(1975, 1, 1), datetime(2037, 1, 1)),
)
def test_rule_12_once_a_local_date_and_never_before_its_time(tz: str, minute: int, since: datetime) -> None:
    daily, zone = Daily(f"{minute // 60:02}:{minute % 60:02}", tz), zoneinfo.ZoneInfo(tz)
    since_ms = round(since.replace(tzinfo=UTC).timestamp() * 1000)
    found = dates_due(daily, since_ms, 5)
    assert all(since_ms < due for due, _ in found)
    for (due, day), (later, next_day) in pairwise(found):
        assert day < next_day
        assert 0 < later - due < 2 * DAY_MS + 2 * 3_600_000
    for due, day in found:
        local = datetime.fromtimestamp(due / 1000, zone)
        assert local.date() == day
        assert local.fold == 0, "of two the first"
        assert local.hour * 60 + local.minute >= minute
        before = datetime.fromtimestamp(due / 1000 - 60, zone)
        reached = before.date() == day and before.hour * 60 + before.minute >= minute
        assert not reached or before.utcoffset() != local.utcoffset(), "it was due earlier"


def test_what_was_missed_is_due_once() -> None:
    daily = Daily("08:00", "Europe/Berlin")
    due, day = daily.next_after(ms("2026-11-01T12:00+01:00"))
    assert day == date(2026, 11, 2)
    away_until = due + 3 * DAY_MS + 3_600_000
    assert daily.next_after(away_until, day) == (due + 4 * DAY_MS, date(2026, 11, 6))


def test_rule_12_a_clock_that_was_put_back_makes_nothing_due_again() -> None:
    daily = Daily("08:00", "Europe/Berlin")
    due, day = daily.next_after(ms("2026-11-01T12:00+01:00"))
    assert daily.next_after(due - 3_600_000, day)[1] == day + timedelta(days=1)
    assert daily.next_after(due - 3 * DAY_MS, day)[1] == day + timedelta(days=1)


@pytest.mark.parametrize("at", ["8:00", "24:00", "08:60", "08.00", "08:00:00", "", "08:00\n", "0٨:00"])
def test_a_time_of_day_that_does_not_exist_is_named(at: str) -> None:
    with pytest.raises(NoSuchTime, match="00:00 to 23:59"):
        Daily(at, "UTC").check()


@pytest.mark.parametrize("tz", ["Europe/Berlim", "", "../../etc/passwd", "/etc/passwd", "CEST", "UTC+2", "a\0b"])
def test_a_zone_that_does_not_exist_is_named(tz: str) -> None:
    with pytest.raises(NoSuchTime, match="no time zone"):
        Daily("08:00", tz).check()


def test_a_machine_without_time_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(NoSuchTime, match="pip install tzdata"):
        Daily("08:00", "Nowhere/At_All").check()
