"""Identity pairs: what may be one, what may not, and that private halves stay out of sight."""

from __future__ import annotations

import pytest

from crypto.errors import Reason
from crypto.identity import IdentityKeys, PublicIdentity
from crypto.primitives import agree, signature_is_valid, signing_secret
from tests.crypto.builders import reason_of, stream

pytestmark = pytest.mark.pure

GOOD = IdentityKeys.generate(stream(1)).public
PRIME = 2**255 - 19


def _little(number: int) -> bytes:
    return number.to_bytes(32, "little")


@pytest.mark.parametrize(
    "key",
    [bytes(31), bytes(33), _little(PRIME), _little(PRIME + 18), _little(2**255), b"\xff" * 32],
)
def test_x25519_keys_that_are_refused(key: bytes) -> None:
    assert reason_of(lambda: PublicIdentity.checked(key, GOOD.signing_key)) is Reason.MALFORMED


SMALL_ORDER = [
    _little(0),
    _little(1),
    _little(PRIME - 1),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize("key", [*SMALL_ORDER, _little(PRIME), _little(PRIME + 1), _little(2**255 - 1)])
def test_ed25519_keys_that_are_refused(key: bytes, sign_bit: int) -> None:
    signed = key[:31] + bytes([key[31] | sign_bit])
    assert reason_of(lambda: PublicIdentity.checked(GOOD.agreement_key, signed)) is Reason.MALFORMED


def test_ed25519_keys_of_another_length_are_refused() -> None:
    for size in (0, 31, 33):
        key = bytes([3]) * size
        assert reason_of(lambda key=key: PublicIdentity.checked(GOOD.agreement_key, key)) is Reason.MALFORMED  # type: ignore[misc]


def test_a_good_pair_is_taken_and_the_largest_canonical_keys_too() -> None:
    assert PublicIdentity.checked(GOOD.agreement_key, GOOD.signing_key) == GOOD
    PublicIdentity.checked(_little(PRIME - 1), GOOD.signing_key)


def test_an_all_zero_result_is_malformed() -> None:
    for low_order in (_little(0), _little(1), _little(PRIME - 1)):
        assert reason_of(lambda key=low_order: agree(bytes([9]) * 32, key)) is Reason.MALFORMED  # type: ignore[misc]


def test_both_forms_of_the_signing_key_give_the_same_pair() -> None:
    seed = bytes(range(32))
    short = IdentityKeys.from_private(bytes(32), seed)
    assert short == IdentityKeys.from_private(bytes(32), signing_secret(seed))
    assert signature_is_valid(short.public.signing_key, b"m", short.sign(b"m"))
    assert not short.public.has_signed(b"n", short.sign(b"m"))


@pytest.mark.parametrize(
    ("agreement", "signing", "named"),
    [
        (bytes(31), bytes(32), "X25519"),
        (bytes(32), bytes(31), "Ed25519"),
        (bytes(32), bytes(33), "Ed25519"),
        (bytes(32), bytes(64), "does not belong"),
    ],
)
def test_wrong_private_keys_are_named_and_not_shown(agreement: bytes, signing: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        IdentityKeys.from_private(agreement, signing)
    assert "\\x00" not in str(refused.value)


def test_a_fingerprint_is_of_owner_and_pair() -> None:
    one = GOOD.fingerprint("a")
    assert len(one) == 16
    assert one == GOOD.fingerprint("a")
    other = PublicIdentity(GOOD.agreement_key, IdentityKeys.generate(stream(2)).public.signing_key)
    assert len({one, GOOD.fingerprint("b"), other.fingerprint("a")}) == 3


def test_no_repr_shows_a_private_half() -> None:
    keys = IdentityKeys.from_private(b"\xaa" * 32, b"\xbb" * 32)
    for shown in (repr(keys), str(keys), f"{keys}"):
        assert "\\xaa\\xaa" not in shown
        assert "\\xbb\\xbb" not in shown
