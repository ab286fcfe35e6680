"""What stands in Redis for a number, and is none, ends no process."""

import re

import pytest

from bus.records.numbers import number_in
from tests.sources import lines_that

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"17", 17),
        (b"-3", -3),
        (17, 17),
        (None, 0),
        (b"", 0),
        (b"-", 0),
        (b"1.5", 0),
        (b"\xff\xfe", 0),
        (b"9" * 40, 0),
        (b" 7", 0),
        ([], 0),
    ],
)
def test_what_is_no_number_counts_as_none(value: object, number: int) -> None:
    assert number_in(value) == number


RAISES = re.compile(r"\bint\(.* or 0\)")


def found_in(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if RAISES.search(line)]


def test_no_other_reader_of_the_bus_takes_what_may_be_none_for_a_number() -> None:
    """`int(found or 0)` raises where the value is damaged; in a loop of the supervisor that is a crash loop."""
    assert lines_that(found_in, ["bus"], concerned=RAISES, least=50) == []
    assert found_in("x = 1\nwaiting = int(found or 0)") == [2]
