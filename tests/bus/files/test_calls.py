"""The calls of the file gate: what is an id, a hash, a range; and each reason of a failure has a status."""

import pytest

from bus.files import calls
from bus.files.calls import CallFailure
from crypto.files import MAX_FILE_BYTES, sealed_size

pytestmark = pytest.mark.pure


def test_the_largest_and_the_smallest_ciphertext_are_those_that_sealing_makes() -> None:
    assert sealed_size(0) == calls.MIN_SEALED_BYTES
    assert sealed_size(MAX_FILE_BYTES) == calls.MAX_SEALED_BYTES


@pytest.mark.parametrize("text", ["a", "A-_0" * 32, "0193e8a2-7f00-7abc-8def-0123456789ab"])
def test_an_id_is_letters_digits_and_two_signs(text: str) -> None:
    assert calls.is_id(text)


@pytest.mark.parametrize(
    "text", ["", "..", "../keys/users/U/devices", "a/b", "a?b", "a#b", "a%2e", "ä", "a\n", "a" * 129]
)
def test_what_could_be_a_path_is_no_id(text: str) -> None:
    assert not calls.is_id(text)


def test_a_range_says_from_which_byte_on() -> None:
    assert calls.first_byte_of(calls.range_from(0)) == 0
    assert calls.first_byte_of(calls.range_from(99_999_999)) == 99_999_999


@pytest.mark.parametrize(
    "value", ["", "bytes=-5", "bytes=1-2", "bytes=1-,3-", "bytes=01-", "bytes=٣-", "items=1-", "bytes=1-\n"]
)
def test_no_other_range_is_known(value: str) -> None:
    assert calls.first_byte_of(value) is None


def test_every_failure_has_a_status() -> None:
    assert set(calls.STATUS) == set(CallFailure)


def test_a_hash_is_lower_case_hex() -> None:
    assert calls.is_sha256("0f" * 32)
    assert not any(map(calls.is_sha256, ("0F" * 32, "0f" * 31, "0f" * 33, "")))
