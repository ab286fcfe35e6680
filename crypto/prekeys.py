"""Prekeys: what a device publishes so that a session can be started while it is away (PROTOCOL §5.5, §3).

A signed prekey counts only under its owner's pinned pair, and its signature covers owner, device, identity
and id, so that a bundle cannot be copied to another owner. Private halves are values that the shell seals
and stores; ids are never used twice. When to rotate and refill is decided here, from what the shell knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import msgspec

from crypto import msgpack, strict_base64
from crypto.errors import Reason, Unreadable, malformed, stored_unreadable
from crypto.identity import LocalDevice, PublicIdentity
from crypto.primitives import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    Random,
    agreement_public,
    check_agreement_key,
    make_agreement_private,
)

SIGNED_PREKEY_ROTATION_MS = 7 * 86_400_000
"""Weekly: how long a first flight without a one-time prekey stays readable to who steals the state."""

SIGNED_PREKEY_KEPT_MS = 30 * 86_400_000
"""The previous ones are kept for 30 days after being replaced, for first messages that were under way."""

CLOCK_AHEAD_MS = 86_400_000
"""What is dated so far ahead was made while the clock was wrong."""

ONE_TIME_PREKEYS_PUBLISHED = 100
ONE_TIME_PREKEYS_REFILL_UNDER = 25

_SIGNED_PREKEY_PREFIX = b"hashee-spk-v1\x00"
_STORED_VERSION = 1


class SignedPrekey(msgspec.Struct, frozen=True, array_like=True):
    """A medium-term X25519 pair and our signature over it. The repr shows the id only."""

    id: int
    private: bytes
    public: bytes
    signature: bytes
    created_ms: int

    def __repr__(self) -> str:
        return f"SignedPrekey(id={self.id}, created_ms={self.created_ms})"

    def encode(self) -> bytes:
        """For sealed storage; holds the private half."""
        return msgpack.encode([_STORED_VERSION, self.id, self.private, self.public, self.signature, self.created_ms])

    @classmethod
    def decode(cls, data: bytes) -> SignedPrekey:
        """The inverse of `encode`. Raises Unreadable `malformed`."""
        stored = _decode_stored(data, _StoredSignedPrekey)
        _check_sizes((stored.private, KEY_BYTES), (stored.public, KEY_BYTES))
        _check_sizes((stored.signature, SIGNATURE_BYTES))
        return cls(stored.id, stored.private, stored.public, stored.signature, stored.created_ms)


class OneTimePrekey(msgspec.Struct, frozen=True, array_like=True):
    """An X25519 pair that at most one session uses. The repr shows the id only."""

    id: int
    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"OneTimePrekey(id={self.id})"

    def encode(self) -> bytes:
        """For sealed storage; holds the private half."""
        return msgpack.encode([_STORED_VERSION, self.id, self.private, self.public])

    @classmethod
    def decode(cls, data: bytes) -> OneTimePrekey:
        """The inverse of `encode`. Raises Unreadable `malformed`."""
        stored = _decode_stored(data, _StoredOneTimePrekey)
        _check_sizes((stored.private, KEY_BYTES), (stored.public, KEY_BYTES))
        return cls(stored.id, stored.private, stored.public)


class PrekeyLookup(Protocol):
    """The private halves that the shell has fetched before a handshake is answered: plain values, no IO."""

    def signed(self, prekey_id: int, /) -> SignedPrekey | None: ...

    def one_time(self, prekey_id: int, /) -> OneTimePrekey | None: ...

    def was_before_a_loss(self, signed_prekey_id: int, /) -> bool:
        """Whether this signed prekey was published before a state was lost: what was sent in its sessions may be unknown here."""
        ...


class Prekeys(msgspec.Struct, frozen=True):
    """The plain `PrekeyLookup`: what was fetched, by id. `lost_through`: signed prekeys up to this id were published before a loss."""

    signed_prekeys: Mapping[int, SignedPrekey] = {}
    one_time_prekeys: Mapping[int, OneTimePrekey] = {}
    lost_through: int = 0

    def signed(self, prekey_id: int, /) -> SignedPrekey | None:
        return self.signed_prekeys.get(prekey_id)

    def one_time(self, prekey_id: int, /) -> OneTimePrekey | None:
        return self.one_time_prekeys.get(prekey_id)

    def was_before_a_loss(self, signed_prekey_id: int, /) -> bool:
        """Returns whether it is among those up to `lost_through`."""
        return signed_prekey_id <= self.lost_through


class Bundle(msgspec.Struct, frozen=True):
    """What one device has published: its owner's pair, a signed prekey, perhaps a one-time prekey."""

    owner_id: str
    device_id: str
    identity: PublicIdentity
    signed_prekey_id: int
    signed_prekey: bytes
    signature: bytes
    one_time_prekey_id: int | None = None
    one_time_prekey: bytes | None = None


def make_signed_prekey(device: LocalDevice, prekey_id: int, now_ms: int, random: Random) -> SignedPrekey:
    """A fresh signed prekey of our device."""
    private = make_agreement_private(random)
    public = agreement_public(private)
    message = _signed_message(
        device.owner_id, device.device_id, device.identity.public.agreement_key, prekey_id, public
    )
    return SignedPrekey(prekey_id, private, public, device.identity.sign(message), now_ms)


def make_one_time_prekeys(first_id: int, count: int, random: Random) -> list[OneTimePrekey]:
    """`count` fresh one-time prekeys with ids from `first_id` on."""
    made = []
    for prekey_id in range(first_id, first_id + count):
        private = make_agreement_private(random)
        made.append(OneTimePrekey(prekey_id, private, agreement_public(private)))
    return made


def refill_count(left: int) -> int:
    """How many one-time prekeys to publish when `left` are left: none, or up to 100 again once under 25."""
    return ONE_TIME_PREKEYS_PUBLISHED - left if left < ONE_TIME_PREKEYS_REFILL_UNDER else 0


def is_signed_by(prekey: SignedPrekey, device: LocalDevice) -> bool:
    """Whether this device's present identity has signed it: after a change of the identity nobody takes the earlier ones."""
    public = device.identity.public
    message = _signed_message(device.owner_id, device.device_id, public.agreement_key, prekey.id, prekey.public)
    return public.has_signed(message, prekey.signature)


def rotation_is_due(current: SignedPrekey, now_ms: int) -> bool:
    """Whether the current signed prekey is a week old, or from when the clock was days ahead: it would stay until a week after that day."""
    return not -CLOCK_AHEAD_MS <= now_ms - current.created_ms < SIGNED_PREKEY_ROTATION_MS


def expired_prekeys(prekeys: Sequence[SignedPrekey], now_ms: int) -> tuple[int, ...]:
    """Ids of signed prekeys to erase: replaced by a later one more than 30 days ago.

    One from when the clock was days ahead is taken to be as old as the one that was made after it.
    """
    made_ms, later_ms = {}, now_ms
    for prekey in sorted(prekeys, key=lambda prekey: prekey.id, reverse=True):
        if prekey.created_ms <= now_ms + CLOCK_AHEAD_MS:
            later_ms = prekey.created_ms
        made_ms[prekey.id] = later_ms
    ordered = sorted(made_ms, key=lambda prekey_id: (made_ms[prekey_id], prekey_id))
    return tuple(old for old, successor in pairwise(ordered) if now_ms - made_ms[successor] > SIGNED_PREKEY_KEPT_MS)


def check_bundle(bundle: Bundle, pinned: PublicIdentity) -> None:
    """Whether the bundle counts under the pinned pair; before any agreement with its keys.

    Raises Unreadable `key_changed` (another pair), `bad_signature` (the signed prekey is not this device's)
    or `malformed` (a refused public key).
    """
    if bundle.identity != pinned:
        raise Unreadable(Reason.KEY_CHANGED, "the bundle has another identity pair than the pinned one")
    check_agreement_key(bundle.signed_prekey)
    if bundle.one_time_prekey is not None:
        check_agreement_key(bundle.one_time_prekey)
    message = _signed_message(
        bundle.owner_id,
        bundle.device_id,
        pinned.agreement_key,
        bundle.signed_prekey_id,
        bundle.signed_prekey,
    )
    if not pinned.has_signed(message, bundle.signature):
        raise Unreadable(Reason.BAD_SIGNATURE, "the signed prekey")


class _JsonSignedPrekey(msgspec.Struct):
    id: int
    public_key: str
    signature: str


class _JsonOneTimePrekey(msgspec.Struct):
    id: int
    public_key: str


class _JsonBundle(msgspec.Struct):
    device_id: str
    public_key: str
    signing_public_key: str
    signed_prekey: _JsonSignedPrekey
    one_time_prekey: _JsonOneTimePrekey | None = None


def bundle_from_json(entry: Mapping[str, object], owner_id: str) -> Bundle:
    """One entry of `GET /keys/users/:id/devices`, or of `GET /keys/agents/:id`, for the owner asked for.

    Nothing is checked here beyond shapes and public keys: `check_bundle` does that. Raises `malformed`.
    """
    try:
        parsed = msgspec.convert(entry, _JsonBundle)
        device_id_bytes = len(parsed.device_id.encode())
    except (msgspec.ValidationError, RecursionError, UnicodeError):
        raise malformed("bundle: not the shape of a device's entry") from None
    told_owner = entry.get("owner_id", owner_id)
    if told_owner != owner_id:
        raise malformed("bundle: another owner than the one asked for")
    if device_id_bytes > msgpack.MAX_ID_BYTES:
        raise malformed("bundle: device_id too long")
    one_time = parsed.one_time_prekey
    return Bundle(
        owner_id=owner_id,
        device_id=parsed.device_id,
        identity=PublicIdentity.checked(
            strict_base64.decode(parsed.public_key, KEY_BYTES),
            strict_base64.decode(parsed.signing_public_key, KEY_BYTES),
        ),
        signed_prekey_id=_prekey_id(parsed.signed_prekey.id),
        signed_prekey=_public_key(parsed.signed_prekey.public_key),
        signature=strict_base64.decode(parsed.signed_prekey.signature, SIGNATURE_BYTES),
        one_time_prekey_id=None if one_time is None else _prekey_id(one_time.id),
        one_time_prekey=None if one_time is None else _public_key(one_time.public_key),
    )


def prekeys_to_json(
    device: LocalDevice, signed: SignedPrekey, one_time: Sequence[OneTimePrekey], *, replace: bool = False
) -> dict[str, object]:
    """The body of `POST /agents/:id/keys/register` and of `POST /users/me/devices`: public halves only.

    `replace`: the relay drops the one-time prekeys that it has; else it adds these.
    """
    public = device.identity.public
    body: dict[str, object] = {
        "public_key": strict_base64.encode(public.agreement_key),
        "signing_public_key": strict_base64.encode(public.signing_key),
        "device_id": device.device_id,
        "signed_prekey": {
            "id": signed.id,
            "public_key": strict_base64.encode(signed.public),
            "signature": strict_base64.encode(signed.signature),
        },
        "one_time_prekeys": [
            {"id": prekey.id, "public_key": strict_base64.encode(prekey.public)} for prekey in one_time
        ],
    }
    return {**body, "replace": True} if replace else body


def _signed_message(owner_id: str, device_id: str, identity_key: bytes, prekey_id: int, prekey: bytes) -> bytes:
    packed = msgpack.encode([owner_id, device_id, identity_key, prekey_id, prekey])
    return _SIGNED_PREKEY_PREFIX + packed


def _public_key(text: str) -> bytes:
    key = strict_base64.decode(text, KEY_BYTES)
    check_agreement_key(key)
    return key


def _prekey_id(number: int) -> int:
    if not 0 <= number <= msgpack.MAX_INTEGER:
        raise malformed("bundle: prekey id out of range")
    return number


class _StoredSignedPrekey(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    id: int
    private: bytes
    public: bytes
    signature: bytes
    created_ms: int


class _StoredOneTimePrekey(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    id: int
    private: bytes
    public: bytes


_Stored = TypeVar("_Stored", _StoredSignedPrekey, _StoredOneTimePrekey)


def _decode_stored(data: bytes, kind: type[_Stored]) -> _Stored:
    try:
        stored = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise stored_unreadable(data, _STORED_VERSION, "stored prekey") from None
    if stored.version != _STORED_VERSION:
        raise stored_unreadable(data, _STORED_VERSION, "stored prekey")
    return stored


def _check_sizes(*parts: tuple[bytes, int]) -> None:
    if any(len(value) != size for value, size in parts):
        raise malformed("stored prekey: wrong length")
