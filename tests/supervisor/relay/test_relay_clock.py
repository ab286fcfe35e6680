"""This host's clock against the relay's: what is certain of a difference, also when ours is set between two connections."""

import time
from email.utils import formatdate

import pytest

from supervisor.relay.relay_clock import WRONG_SECONDS, RelayClock
from supervisor.relay.relay_date import RelayDate, boot_seconds

pytestmark = pytest.mark.pure

DAY = 86_400.0


def connected(*, relay_ahead: float = 0.0, took: float = 0.0, text: str | None = None) -> RelayClock:
    """One that heard the relay's date just now, in an answer that took so long."""
    clock, now = RelayClock(), boot_seconds()
    clock.heard(RelayDate(text or formatdate(time.time() + relay_ahead, usegmt=True), now - took, now))
    return clock


WRITTEN_EARLY = connected(relay_ahead=-25.0, took=30.0)
"""The answer was long under way after its date was written."""


@pytest.mark.parametrize("clock", [RelayClock(), connected(), WRITTEN_EARLY, connected(text="no date")])
def test_what_may_agree_is_no_difference(clock: RelayClock) -> None:
    assert (clock.ahead_seconds(), clock.fault()) == (0.0, "")


@pytest.mark.parametrize(
    ("relay_ahead", "said"),
    [(2 * DAY, "this host's clock is 17"), (-2 * DAY, "this host's clock is 17"), (WRONG_SECONDS / 2, "")],
)
def test_what_is_certainly_apart_is_told_with_its_direction(relay_ahead: float, said: str) -> None:
    clock = connected(relay_ahead=relay_ahead, took=5.0)
    assert abs(clock.ahead_seconds() - relay_ahead) <= 5.0 + 2.0
    assert clock.fault().startswith(said)
    assert ("behind the relay's" in clock.fault()) == (relay_ahead > WRONG_SECONDS)


def test_a_clock_that_is_set_while_a_connection_stands_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, put_back = connected(), time.time() - DAY
    assert clock.fault() == ""
    monkeypatch.setattr(time, "time", lambda: put_back)
    assert clock.ahead_seconds() == pytest.approx(DAY, abs=2.0)
    assert "behind the relay's" in clock.fault()


def test_the_next_connections_date_counts_if_it_is_one() -> None:
    clock = connected(relay_ahead=2 * DAY)
    now = boot_seconds()
    clock.heard(RelayDate("no date", now, now))
    assert clock.fault() != ""
    clock.heard(RelayDate(formatdate(time.time(), usegmt=True), now, now))
    assert clock.fault() == ""
