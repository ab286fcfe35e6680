"""What was opened lately is bounded in bytes and in time, is of one conversation, and goes with what is forgotten."""

import pytest

from bus.steps.opened import OpenedExchange, OpenedExchanges, RecordsLately

pytestmark = pytest.mark.pure


def exchange(size: int = 10, conversation: str = "c") -> OpenedExchange:
    return OpenedExchange(conversation, 1, "thread", bytes(size))


def test_it_is_found_in_its_own_conversation_alone() -> None:
    kept = OpenedExchanges()
    kept.put(b"1", exchange())
    assert kept.get(b"1", "c") is not None
    assert kept.get(b"1", "another") is None
    assert kept.get(b"2", "c") is None


def test_what_was_used_least_lately_leaves_where_there_is_no_room() -> None:
    kept = OpenedExchanges(most_bytes=30)
    for version in (b"1", b"2", b"3"):
        kept.put(version, exchange())
    assert kept.get(b"1", "c") is not None
    kept.put(b"4", exchange(15))
    assert [version for version in (b"1", b"2", b"3", b"4") if kept.get(version, "c")] == [b"1", b"4"]
    kept.put(b"5", exchange(31))
    assert len(kept) == 0


def test_what_nobody_has_used_for_a_while_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bus.steps.opened.time.monotonic", lambda: now[0])
    kept = OpenedExchanges(kept_seconds=60.0)
    kept.put(b"1", exchange())
    kept.put(b"2", exchange())
    now[0] += 50
    kept.get(b"1", "c")
    now[0] += 50
    kept.sweep()
    assert (kept.get(b"1", "c"), kept.get(b"2", "c")) != (None, None)
    assert len(kept) == 1


def test_what_is_forgotten_is_not_here_any_more() -> None:
    kept = OpenedExchanges()
    kept.put(b"1", exchange())
    kept.put(b"2", exchange(conversation="another"))
    kept.forget("c")
    assert kept.get(b"1", "c") is None
    assert kept.get(b"2", "another") is not None


def records(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


@pytest.mark.parametrize(
    ("count", "newest", "whole"),
    [
        (5, records(2, 3, 4, 5), records(1, 2, 3, 4, 5)),
        (6, records(3, 4, 5, 6), records(1, 2, 3, 4, 5, 6)),
        (5, records(5, 6, 7, 8), records(4, 5, 6, 7, 8)),
        (4, records(2, 3, 4, 5), records(2, 3, 4, 5)),
        (1, records(9), records(9)),
        (0, [], []),
        (9, records(6, 7, 8, 9), None),
        (8, records(2, 3, 4, 5), None),
        (5, [b"2", b"3", b"4", b"5 sealed anew"], None),
    ],
    ids=[
        "the same",
        "one more",
        "three more, two gone",
        "one gone",
        "others",
        "none",
        "too many more",
        "from elsewhere",
        "sealed anew",
    ],
)
def test_a_history_is_known_from_its_newest_records_or_has_to_be_read(
    count: int, newest: list[bytes], whole: list[bytes] | None
) -> None:
    read = RecordsLately()
    read.put("c", records(1, 2, 3, 4, 5))
    assert read.whole("c", count, newest) == whole
    assert read.whole("another", 5, records(2, 3, 4, 5)) is None


def test_records_that_were_read_are_bounded_and_go_with_what_is_forgotten() -> None:
    read = RecordsLately(most_bytes=10)
    for name in ("a", "b", "c"):
        read.put(name, [bytes(4)])
    assert [name for name in ("a", "b", "c") if read.knows(name)] == ["b", "c"]
    read.put("b", [bytes(5)])
    read.put("d", [bytes(5)])
    assert [name for name in ("b", "c", "d") if read.knows(name)] == ["b", "d"], "b was read later than c"
    read.forget("b")
    read.put("large", [bytes(11)])
    assert not any(map(read.knows, ("b", "d", "large")))
    read.put("none", [])
    assert not read.knows("none")


def test_records_that_nobody_has_read_for_a_while_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bus.steps.opened.time.monotonic", lambda: now[0])
    read = RecordsLately(kept_seconds=60.0)
    read.put("a", records(1))
    read.put("b", records(1))
    now[0] += 50
    read.put("a", records(1, 2))
    now[0] += 50
    read.sweep()
    assert (read.knows("a"), read.knows("b")) == (True, False)
