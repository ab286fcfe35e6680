"""What a leak test looks for is found in every form and at every place, and shown in none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.doctor.needles import Needles

pytestmark = pytest.mark.pure

SECRET = bytes(range(200, 232))
NEEDLES = Needles({"the key": SECRET, "the word": b"leak-test-0123456789abcdef"})


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("as it is", lambda text: text),
        ("base64", base64.b64encode),
        ("base64", base64.urlsafe_b64encode),
        ("hex", lambda text: text.hex().encode()),
        ("hex", lambda text: text.hex().upper().encode()),
    ],
)
def test_each_form_is_found_wherever_it_begins(form: str, write: object, before: bytes, after: bytes) -> None:
    assert callable(write)
    assert NEEDLES.find(b"x" + write(before + SECRET + after) + b"y") == {("the key", form)}


@given(cut=st.integers(0, 80), size=st.integers(1, 50))
def test_what_is_cut_between_two_pieces_is_found(cut: int, size: int) -> None:
    text = b"." * cut + base64.b64encode(SECRET) + b"." * 20
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert NEEDLES.find_in(pieces) == {("the key", "base64")}


def test_nothing_is_found_in_what_is_like_it_and_nothing_is_shown() -> None:
    assert NEEDLES.find(SECRET[1:] + base64.b64encode(SECRET[:-2]) + b"leak-test-") == set()
    assert Needles({}).find(b"") == Needles({}).find_in([b"a"]) == set()
    assert repr(NEEDLES) == "Needles(the key, the word)"
    assert NEEDLES.without(b"conv:leak-test-0123456789abcdef:\xff") == "conv:(hidden):\\xff"
