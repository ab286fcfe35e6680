"""The relay's clock tells of a machine that stood still or was put back with its memory, before anything is sent (DESIGN rule 17)."""

from email.utils import formatdate
from pathlib import Path

import pytest

from bus.steps.store import Intake
from supervisor.recovery.standstill import MOST_PER_DAY, Pace, Standstill
from supervisor.recovery.time_guard import FILE
from supervisor.relay.relay_date import RelayDate, boot_seconds
from tests.redis_server import redis_server
from tests.supervisor.builders import reply_to_next
from tests.supervisor.doubles import FakeRest
from tests.supervisor.inbound.test_forgotten import connected, kept, machine_put_back
from tests.supervisor.inbound.test_forgotten import stored as stored_of
from tests.supervisor.person import Person
from tests.supervisor.recovery.test_time_guard import answered, answered_after_an_offer, confirmed
from tests.trials.drills.forks import forks

STARTED = 1_800_000_000.0
"""When the host was started, by the relay's clock."""

HOUR = 3600.0
DAY = 24 * HOUR


def dated(at: float, *, lost: float = 0.0, took: float = 0.0) -> RelayDate:
    """An answer that is heard at this time of the host, asked for so long before, and written in between; the relay's clock is `lost` further."""
    return RelayDate(formatdate(STARTED + lost + at - took / 2, usegmt=True), at - took, at)


def lost(*dates: RelayDate, pace: Pace | None = None) -> float:
    """What the last of them says."""
    standstill = Standstill()
    standstill.pace = pace
    return [standstill.heard(date) for date in dates][-1]


@pytest.mark.pure
@pytest.mark.parametrize(
    "second",
    [
        dated(100.9),
        dated(200.0, lost=4.0),
        dated(200.0, lost=-HOUR),
        dated(200.0, took=15.0),
        dated(7 * DAY, lost=60.0),
        RelayDate("", 200.0, 200.0),
        RelayDate("Sun, 99 Nov 2026 99:99:99 GMT", 200.0, 200.0),
        RelayDate("yesterday", 200.0, 200.0),
    ],
)
def test_what_two_clocks_and_a_slow_answer_explain_is_no_standstill(second: RelayDate) -> None:
    assert lost(dated(100.0), second) == 0.0
    assert lost(dated(100.0, took=20.0), second) == 0.0
    assert lost(second) == 0.0


@pytest.mark.pure
@pytest.mark.parametrize("seconds", [7.0, 600.0, 90 * DAY])
def test_what_the_relays_clock_went_on_alone_is_told_once(seconds: float) -> None:
    """The host counts on from where it was put back to, which may be before it was last asked."""
    for at in (100.0, 101.0, 40.0):
        assert lost(dated(100.0), dated(at, lost=seconds)) == pytest.approx(seconds, abs=1.1)
    assert lost(dated(100.0), dated(101.0, lost=seconds), dated(102.0, lost=seconds)) == 0.0
    assert lost(dated(101.0, lost=seconds), pace=Pace(STARTED + 1, 50.0)) == pytest.approx(seconds, abs=2.1)


@pytest.mark.pure
def test_a_slow_answer_hides_no_more_than_it_took() -> None:
    assert lost(dated(100.0, took=10.0), dated(200.0, lost=30.0, took=10.0)) > 15.0


@pytest.mark.pure
def test_a_relay_that_says_another_time_each_time_is_believed_so_often_a_day() -> None:
    standstill = Standstill()
    found = [standstill.heard(dated(100.0 + turn, lost=turn * HOUR)) > 0 for turn in range(3 * MOST_PER_DAY)]
    assert sum(found) == MOST_PER_DAY
    assert standstill.heard(dated(100.0 + DAY + 2, lost=100 * HOUR)) > 0


@pytest.mark.pure
def test_the_time_since_the_start_of_the_host_is_that_of_the_kernel() -> None:
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    assert boot_seconds() == pytest.approx(uptime, abs=10)


async def test_a_machine_put_back_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    """In a conversation in which only the agent spoke meanwhile, where no number of the relay's tells."""
    rest, machine = FakeRest(), tmp_path / "machine"
    machine.mkdir()
    with redis_server(machine) as url:
        async with connected(url, rest) as core:
            core.guard.relay_dated(dated(boot_seconds()))
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            await core.push(ada.say("first"))
            ada.read(await answered(core, "to the first", 2))
            await core.push(ada.say("second", seq=3))
            dump = await kept(core, machine)
            await reply_to_next(core, "to the second", "and more")
            for seq in (4, 5):
                await confirmed(core, (await core.connection.wait_sent(seq - 2))[-1], seq)
            forgotten = core.connection.sent[1:]
        await machine_put_back(url, machine, dump)
        async with connected(url, rest) as core:
            core.guard.relay_dated(dated(boot_seconds(), lost=HOUR))
            core.guard.relay_dated(dated(boot_seconds(), lost=HOUR))
            await answered_after_an_offer(core, ada, "to the second, in other words", 6, 4)
            assert await core.polled(ada.say("third", seq=7)) is Intake.ACCEPTED
            assert ada.read(await answered(core, "to the third", 8))["text"] == "to the third"
            assert forks(stored_of(*forgotten, *core.connection.sent)) == []
            assert (core.write_count.epoch, core.count("redis_unproven_total")) == (1, 1)
            assert core.count("redis_went_back_total") == 0, "nothing shows that anything is lost"


async def test_what_was_noted_on_another_boot_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server(tmp_path) as url:
        async with connected(url, FakeRest()) as core:
            core.guard.relay_dated(dated(boot_seconds()))
            await core.guard.look_again()
        assert b'"pace":{' in (tmp_path / FILE).read_bytes()
        monkeypatch.setattr("supervisor.recovery.time_guard.boot_id", lambda: "another")
        async with connected(url, FakeRest()) as core:
            epoch = core.write_count.epoch
            core.guard.relay_dated(dated(boot_seconds(), lost=HOUR))
            await core.guard.look_again()
            assert core.write_count.epoch == epoch
