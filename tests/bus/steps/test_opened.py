"""What is known of histories is what they have become, is bounded in bytes and in time, and goes with what is forgotten."""

import pytest

from bus.records.kept import MOST_EXCHANGES, pack_kept, size_of_exchange
from bus.records.sealing import BusKey
from bus.steps.opened import MOST_BYTES, MOST_GONE, Exchange, HistoriesLately, exchange_in

pytestmark = pytest.mark.pure

KEY = BusKey(bytes(32))


def record(number: int) -> bytes:
    return pack_kept(b"%05d" % number, "history", "c", f"{1000 + number}:job-{number}", key=KEY, agent_id="a")


RECORDS = [record(number) for number in range(130)]
SIZE = size_of_exchange(RECORDS[0])


def numbers(exchanges: list[Exchange] | None) -> list[int] | None:
    return None if exchanges is None else [one.at_ms - 1000 for one in exchanges]


def asked(lately: HistoriesLately, there: list[bytes], name: str = "c") -> list[int] | None:
    """What follows for a conversation whose records are these now."""
    place = lately.ask_from(name)
    return numbers(lately.follow(name, place, there[place:]))


def test_a_record_says_when_it_ended_and_in_which_thread() -> None:
    assert exchange_in(RECORDS[7]) == Exchange(1007, "job-7", exchange_in(RECORDS[7]).sealed, SIZE)
    assert exchange_in(b"damaged") == Exchange(0, "", b"", size_of_exchange(b"damaged"))


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (RECORDS[:5], range(5)),
        (RECORDS[:6], range(6)),
        (RECORDS[:9], range(9)),
        (RECORDS[1:6], None),
        (RECORDS[20:26], None),
        ([*RECORDS[:4], record(4)], None),
        (RECORDS[:3], None),
        ([], None),
    ],
    ids=[
        "the same",
        "one more",
        "four more",
        "one more, one gone",
        "others",
        "the last sealed anew",
        "fewer",
        "none",
    ],
)
def test_a_history_follows_from_its_last_record_or_has_to_be_read(there: list[bytes], found: range | None) -> None:
    lately = HistoriesLately()
    lately.begin("c", RECORDS[:5])
    assert lately.ask_from("c") == 4, "no more is read than what is new, and the last that is known"
    assert asked(lately, there) == (None if found is None else list(found))
    assert asked(lately, RECORDS[:5], "another") is None
    assert lately.ask_from("another") == 0


@pytest.mark.parametrize("gone", range(MOST_GONE + 2))
def test_of_a_full_history_the_oldest_may_have_gone(gone: int) -> None:
    lately = HistoriesLately()
    lately.begin("c", RECORDS[:MOST_EXCHANGES])
    there = RECORDS[gone : MOST_EXCHANGES + gone]
    assert asked(lately, there) == (None if gone > MOST_GONE else list(range(gone, MOST_EXCHANGES + gone)))


def test_what_has_lost_its_oldest_once_is_taken_to_lose_more() -> None:
    lately = HistoriesLately()
    lately.begin("c", RECORDS[:10])
    assert asked(lately, RECORDS[1:11]) is None, "by its bytes: that it may have was not known"
    assert numbers(lately.follow("c", 0, RECORDS[1:11])) == list(range(1, 11))
    assert asked(lately, RECORDS[3:13]) == list(range(3, 13))
    assert asked(lately, RECORDS[3:14]) == list(range(3, 14))
    assert asked(lately, RECORDS[5:14]) == list(range(5, 14))


def test_what_was_there_before_a_restore_is_not_taken_for_what_is_there() -> None:
    lately = HistoriesLately()
    lately.begin("c", RECORDS[5:10])
    assert lately.follow("c", 0, RECORDS[:10]) is None, "more stands before the last than was known"
    assert numbers(lately.begin("c", RECORDS[:10])) == list(range(10))
    assert asked(lately, RECORDS[:11]) == list(range(11))


def test_what_was_opened_stays_opened() -> None:
    lately = HistoriesLately()
    for one in lately.begin("c", RECORDS[:5]):
        one.decoded = "opened"
    found = lately.follow("c", 4, RECORDS[4:7])
    assert found is not None
    assert [one.decoded for one in found] == ["opened"] * 5 + [None] * 2
    found = lately.follow("c", 0, RECORDS[2:8])
    assert found is not None
    assert [one.decoded for one in found] == ["opened"] * 3 + [None] * 3


def known(lately: HistoriesLately, *names: str) -> str:
    return "".join(name for name in names if lately.ask_from(name))


def test_what_was_read_least_lately_leaves_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bus.steps.opened.time.monotonic", lambda: now[0])
    lately = HistoriesLately(most_bytes=10 * SIZE, busy_seconds=1.0)
    for name in "abc":
        lately.begin(name, RECORDS[:3])
    now[0] += 2.0
    assert asked(lately, RECORDS[:4], "a") == [0, 1, 2, 3]
    lately.begin("d", RECORDS[:2])
    assert known(lately, *"abcd") == "acd", "b was read least lately"
    lately.begin("large", RECORDS[:11])
    assert known(lately, *"acd", "large") == "ad", "what was read within a second stays"
    lately.begin("b", RECORDS[:5])
    assert known(lately, *"abd") == "ad"
    assert asked(lately, RECORDS[:9], "a") == list(range(9))
    assert known(lately, *"abd") == "d", "it has grown, and has no room any more"
    lately.begin("e", RECORDS[:8])
    assert known(lately, *"de") == "de"


def test_what_has_gone_takes_no_room_any_more() -> None:
    lately = HistoriesLately(most_bytes=12 * SIZE + 10)
    lately.begin("a", RECORDS[:10])
    assert numbers(lately.follow("a", 0, RECORDS[5:12])) == list(range(5, 12))
    lately.begin("b", RECORDS[:5])
    assert known(lately, "a", "b") == "ab"
    lately.begin("c", RECORDS[:2])
    assert known(lately, "a", "b", "c") == "ab"


def test_what_nobody_has_read_for_a_while_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bus.steps.opened.time.monotonic", lambda: now[0])
    lately = HistoriesLately(kept_seconds=60.0)
    lately.begin("a", RECORDS[:2])
    lately.begin("b", RECORDS[:2])
    now[0] += 50
    assert asked(lately, RECORDS[:2], "a") == [0, 1]
    now[0] += 50
    lately.sweep()
    assert known(lately, "a", "b") == "a"
    now[0] += 100
    lately.sweep()
    assert known(lately, "a", "b") == ""
    lately.begin("a", RECORDS[:2])
    assert known(lately, "a") == "a"


def test_what_is_forgotten_is_not_known_any_more() -> None:
    lately = HistoriesLately(most_bytes=5 * SIZE)
    lately.begin("a", RECORDS[:2])
    lately.begin("b", RECORDS[:2])
    lately.forget("a")
    lately.forget("never known")
    assert known(lately, "a", "b") == "b"
    lately.begin("b", [])
    assert known(lately, "a", "b") == ""
    lately.begin("c", RECORDS[:5])
    assert known(lately, "c") == "c", "its bytes are free again"


def test_it_takes_a_small_part_of_the_memory_that_the_process_may_use() -> None:
    assert HistoriesLately.here(256 << 20).most_bytes == 8 << 20
    assert HistoriesLately.here(512 << 20).most_bytes == HistoriesLately.here(64 << 30).most_bytes == MOST_BYTES
    assert 0 < HistoriesLately.here().most_bytes <= MOST_BYTES
