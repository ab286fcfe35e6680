"""Prekeys and bundles: made, published, read back, checked, rotated, refilled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from crypto import strict_base64
from crypto.errors import Reason
from crypto.identity import PublicIdentity
from crypto.prekeys import (
    OneTimePrekey,
    SignedPrekey,
    bundle_from_json,
    check_bundle,
    expired_prekeys,
    make_one_time_prekeys,
    make_signed_prekey,
    prekeys_to_json,
    refill_count,
    rotation_is_due,
)
from crypto.primitives import agreement_public
from tests.crypto.builders import DAY_MS, NOW_MS, make_peer, reason_of, stream

pytestmark = pytest.mark.pure


def _entry() -> dict[str, Any]:
    """A device's entry as the relay gives it out, with one one-time prekey."""
    alice = make_peer(1)
    entry = prekeys_to_json(alice.device, alice.signed[1], list(alice.one_time.values()))
    published = entry.pop("one_time_prekeys")
    assert isinstance(published, list)
    return entry | {"one_time_prekey": published[0]}


def test_what_is_published_is_read_back_as_a_bundle_that_counts() -> None:
    alice = make_peer(1)
    bundle = bundle_from_json(_entry(), alice.device.owner_id)
    check_bundle(bundle, alice.device.identity.public)
    assert bundle.device_id == alice.id
    assert bundle.one_time_prekey == alice.one_time[1].public
    without = {key: value for key, value in _entry().items() if key != "one_time_prekey"}
    assert bundle_from_json(without, alice.device.owner_id).one_time_prekey_id is None


def test_nothing_private_is_published() -> None:
    alice = make_peer(1)
    published = str(prekeys_to_json(alice.device, alice.signed[1], list(alice.one_time.values())))
    secrets = [alice.signed[1].private, *(key.private for key in alice.one_time.values())]
    for secret in [*secrets, *alice.device.identity.private_halves()]:
        assert strict_base64.encode(secret) not in published


def _set(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        for key in path[:-1]:
            entry = entry[key]
        entry[path[-1]] = value

    return change


NON_CANONICAL = strict_base64.encode(b"\xed" + b"\xff" * 30 + b"\x7f")
TOP_BIT = strict_base64.encode(bytes(31) + b"\x80")
SMALL_ORDER = strict_base64.encode(b"\x01" + bytes(31))


@pytest.mark.parametrize(
    "change",
    [
        _set("public_key", value="x"),
        _set("public_key", value=NON_CANONICAL),
        _set("public_key", value=TOP_BIT),
        _set("signing_public_key", value=SMALL_ORDER),
        _set("signing_public_key", value=strict_base64.encode(b"\xff" * 32)),
        _set("signed_prekey", value=None),
        _set("signed_prekey", "id", value=-1),
        _set("signed_prekey", "id", value=2**32),
        _set("signed_prekey", "id", value=True),
        _set("signed_prekey", "public_key", value=strict_base64.encode(bytes(31))),
        _set("signed_prekey", "signature", value=strict_base64.encode(bytes(63))),
        _set("one_time_prekey", "public_key", value=NON_CANONICAL),
        _set("one_time_prekey", "id", value="1"),
        _set("device_id", value="x" * 129),
        _set("device_id", value=7),
        _set("device_id", value="\ud800"),
        _set("\ud800", value=7),
        _set("owner_id", value="somebody else"),
    ],
)
def test_an_entry_of_another_shape_is_malformed(change: Callable[[dict[str, Any]], None]) -> None:
    entry = _entry()
    change(entry)
    assert reason_of(lambda: bundle_from_json(entry, make_peer(1).device.owner_id)) is Reason.MALFORMED


def test_the_pinned_pair_is_compared_as_a_pair() -> None:
    alice, other = make_peer(1), make_peer(2)
    own, foreign = alice.device.identity.public, other.device.identity.public
    for pinned in (
        PublicIdentity(own.agreement_key, foreign.signing_key),
        PublicIdentity(foreign.agreement_key, own.signing_key),
    ):
        assert reason_of(lambda pinned=pinned: check_bundle(alice.bundle(), pinned)) is Reason.KEY_CHANGED  # type: ignore[misc]


def test_a_bundle_with_a_refused_key_is_malformed_before_its_signature_is_looked_at() -> None:
    alice = make_peer(1)
    bundle = alice.bundle()
    for changes in ({"signed_prekey": b"\xff" * 32}, {"one_time_prekey": b"\xff" * 32}):
        changed = msgspec.structs.replace(bundle, **changes)
        assert reason_of(lambda changed=changed: check_bundle(changed, bundle.identity)) is Reason.MALFORMED  # type: ignore[misc]


def test_stored_forms_round_trip_and_broken_ones_are_malformed() -> None:
    alice = make_peer(1)
    signed, one_time = alice.signed[1], alice.one_time[3]
    assert SignedPrekey.decode(signed.encode()) == signed
    assert OneTimePrekey.decode(one_time.encode()) == one_time
    for cut in range(0, len(signed.encode()), 11):
        broken = signed.encode()[:cut]
        assert reason_of(lambda broken=broken: SignedPrekey.decode(broken)) is Reason.MALFORMED  # type: ignore[misc]
        assert reason_of(lambda broken=broken: OneTimePrekey.decode(broken)) is Reason.MALFORMED  # type: ignore[misc]
    short = msgspec.structs.replace(one_time, private=bytes(31)).encode()
    assert reason_of(lambda: OneTimePrekey.decode(short)) is Reason.MALFORMED


def test_rotation_expiry_and_refill() -> None:
    alice = make_peer(1)
    first = alice.signed[1]
    assert not rotation_is_due(first, NOW_MS + 7 * DAY_MS - 1)
    assert rotation_is_due(first, NOW_MS + 7 * DAY_MS)
    second = make_signed_prekey(alice.device, 2, NOW_MS + 7 * DAY_MS, alice.random)
    assert expired_prekeys([second, first], NOW_MS + 37 * DAY_MS) == ()
    assert expired_prekeys([second, first], NOW_MS + 37 * DAY_MS + 1) == (1,)
    assert expired_prekeys([first], NOW_MS + 400 * DAY_MS) == ()
    assert [refill_count(left) for left in (0, 24, 25, 100)] == [100, 76, 0, 0]


def test_a_prekey_of_days_when_the_clock_was_ahead_is_replaced_and_erased_like_any() -> None:
    alice = make_peer(1)
    first = alice.signed[1]
    ahead = make_signed_prekey(alice.device, 2, NOW_MS + 365 * DAY_MS, alice.random)
    assert not rotation_is_due(ahead, NOW_MS + 364 * DAY_MS)  # clocks are never quite alike
    assert rotation_is_due(ahead, NOW_MS + 2 * DAY_MS)
    third = make_signed_prekey(alice.device, 3, NOW_MS + 2 * DAY_MS, alice.random)
    assert expired_prekeys([first, ahead, third], NOW_MS + 32 * DAY_MS) == ()
    assert expired_prekeys([first, ahead, third], NOW_MS + 32 * DAY_MS + 1) == (1, 2)


def test_a_prekey_of_days_when_the_clock_was_behind_erases_none_before_its_time() -> None:
    alice = make_peer(1)
    behind = make_signed_prekey(alice.device, 2, NOW_MS - 1_000 * DAY_MS, alice.random)
    third = make_signed_prekey(alice.device, 3, NOW_MS, alice.random)
    assert expired_prekeys([alice.signed[1], behind], NOW_MS - 1_000 * DAY_MS) == ()
    assert expired_prekeys([alice.signed[1], behind, third], NOW_MS + 30 * DAY_MS) == ()


def test_one_time_prekeys_have_rising_ids_and_matching_halves() -> None:
    made = make_one_time_prekeys(40, 3, stream(5))
    assert [prekey.id for prekey in made] == [40, 41, 42]
    assert all(agreement_public(prekey.private) == prekey.public for prekey in made)
    assert len({prekey.private for prekey in made}) == 3


def test_a_session_survives_the_rotation_of_the_prekey_it_began_with() -> None:
    alice, agent = make_peer(1), make_peer(2)
    first = alice.seal(agent, "under way")
    agent.signed[2] = make_signed_prekey(agent.device, 2, NOW_MS, agent.random)
    agent.current_signed = 2
    assert agent.open(alice, first) == "under way"
    del agent.signed[1]
    assert agent.open(alice, alice.seal(agent, "still")) == "still"
