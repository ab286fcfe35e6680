"""ULIDs: 26 characters that sort by time, and the time read back."""

import pytest

from bus.records import ulid

pytestmark = pytest.mark.pure


def test_a_ulid_has_26_characters_and_sorts_by_time() -> None:
    early, late = ulid.make(1_000, bytes([255] * 10)), ulid.make(1_001, bytes(10))
    assert len(early) == len(late) == ulid.CHARS
    assert early < late


def test_the_specification_s_example_is_met() -> None:
    assert ulid.make(1469918176385, bytes(10)).startswith("01ARYZ6S41")
    assert ulid.time_ms("01ARYZ6S41TSV4RRFFQ69G5FAV") == 1469918176385


@pytest.mark.parametrize(
    "text", ["", "01ARYZ6S41TSV4RRFFQ69G5FA", "81ARYZ6S41TSV4RRFFQ69G5FAV", "01aryz6s41tsv4rrffq69g5fav"]
)
def test_what_is_no_ulid_has_no_time(text: str) -> None:
    assert ulid.time_ms(text) is None


def test_a_fresh_one_is_of_now_and_never_the_same() -> None:
    first, second = ulid.new(), ulid.new()
    assert first != second
    assert (ulid.time_ms(second) or 0) - (ulid.time_ms(first) or 0) < 60_000


@pytest.mark.parametrize(("time_ms", "randomness"), [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9))])
def test_a_time_or_randomness_that_does_not_fit_is_refused(time_ms: int, randomness: bytes) -> None:
    with pytest.raises(ValueError, match="ULID"):
        ulid.make(time_ms, randomness)
