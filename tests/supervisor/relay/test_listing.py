"""The splitter of lists: whatever the pieces, the entries are those of the JSON; and what is too large is cut and hides nothing."""

import json

from hypothesis import given
from hypothesis import strategies as st

from supervisor.relay.listing import Limits, Listing

WIDE = Limits(entry_bytes=1 << 20, string_bytes=1 << 20)
texts = st.text(alphabet=st.sampled_from('ab"\\{}[],: \n\té🌸data'), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
surroundings = st.dictionaries(texts.filter(lambda name: name != "data"), values, max_size=3)


def split(body: bytes, sizes: list[int], limits: Limits = WIDE) -> tuple[list[bytes], Listing]:
    listing, entries, at = Listing(limits), list[bytes](), 0
    for size in [*sizes, len(body)]:
        entries += listing.feed(body[at : at + size])
        at += size
    return entries, listing


sizes = st.lists(st.integers(1, 9), max_size=40)


@given(
    st.tuples(surroundings, surroundings),
    st.lists(values, max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
    sizes,
)
def test_the_entries_are_those_of_the_list_however_the_bytes_come(
    around: tuple[dict[str, object], dict[str, object]],
    entries: list[object],
    indent: int | None,
    escaped: bool,
    pieces: list[int],
) -> None:
    before, after = around
    answer = {**before, "data": entries, **{name: value for name, value in after.items() if name not in before}}
    body = json.dumps(answer, indent=indent, ensure_ascii=escaped).encode()
    found, listing = split(body, pieces)
    assert [json.loads(entry) for entry in found] == entries
    assert listing.is_whole


@given(surroundings, st.lists(values, max_size=4), st.integers(1, 40), sizes)
def test_a_body_that_stops_anywhere_is_not_whole(
    before: dict[str, object], entries: list[object], missing: int, pieces: list[int]
) -> None:
    body = json.dumps({**before, "data": entries}).encode()
    assert not split(body[: max(0, len(body) - missing)], pieces)[1].is_whole


@given(st.binary(max_size=60), sizes)
def test_anything_at_all_is_read_to_its_end(body: bytes, pieces: list[int]) -> None:
    entries, _ = split(body, pieces)
    assert sum(len(entry) for entry in entries) <= len(body)


@given(st.integers(0, 60), st.integers(0, 60), sizes)
def test_a_string_that_is_too_long_becomes_an_empty_one_and_its_entry_goes_on(
    length: int, other: int, pieces: list[int]
) -> None:
    limits = Limits(entry_bytes=1000, string_bytes=32)
    body = json.dumps({"data": [{"long": "A" * length, "id": "x"}, "\\" * (other // 2), {"id": "y"}]}).encode()
    found, listing = split(body, pieces, limits)
    kept = "A" * length if length + 2 <= limits.string_bytes else ""
    assert [json.loads(entry) for entry in found[::2]] == [{"long": kept, "id": "x"}, {"id": "y"}]
    assert listing.is_whole


def test_an_entry_that_is_too_long_is_cut_and_the_next_one_is_whole() -> None:
    body = json.dumps({"data": [list(range(1000)), {"id": "y"}]}).encode()
    (first, second), _ = split(body, [7] * 1000, Limits(entry_bytes=100, string_bytes=50))
    assert len(first) == 100
    assert json.loads(second) == {"id": "y"}


def test_where_no_list_stands_none_is_found() -> None:
    for body in (
        b'{"data":{"data":[1]}}',
        b'{"other":[1]}',
        b'{"data":null}',
        b'"data"',
        b"",
        b'{"error":{"data":[1]}}',
    ):
        entries, listing = split(body, [])
        assert (entries, listing.was_found) == ([], False), body
