"""Who somebody is: the identity pair of an owner (PROTOCOL §5 "Identity") and our own private halves.

A pair is always handled as a pair: one key without the other is a key change. A public pair from outside
is built by `PublicIdentity.checked`, never by its bare constructor. Private halves never show in a repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from crypto import msgpack
from crypto.primitives import (
    KEY_BYTES,
    SIGNING_SECRET_BYTES,
    Random,
    agree,
    agreement_public,
    check_agreement_key,
    check_signing_key,
    equal,
    make_agreement_private,
    sha256,
    sign,
    signature_is_valid,
    signing_secret,
)

FINGERPRINT_BYTES = 16
_FINGERPRINT_PREFIX = b"hashee-fingerprint-v1\x00"


class PublicIdentity(msgspec.Struct, frozen=True):
    """An owner's public pair: X25519 `agreement_key` and Ed25519 `signing_key`, 32 bytes each."""

    agreement_key: bytes
    signing_key: bytes

    @classmethod
    def checked(cls, agreement_key: bytes, signing_key: bytes) -> PublicIdentity:
        """A pair that came from outside. Raises Unreadable `malformed` for a key that §5 "Bytes" refuses."""
        check_agreement_key(agreement_key)
        check_signing_key(signing_key)
        return cls(agreement_key, signing_key)

    @property
    def pair(self) -> bytes:
        """X25519 ‖ Ed25519, 64 bytes, as the ratchet's associated data takes it (§5.4)."""
        return self.agreement_key + self.signing_key

    def fingerprint(self, owner_id: str) -> bytes:
        """The 16 bytes of §5.11 by which people compare an owner's keys."""
        packed = msgpack.encode([owner_id, self.agreement_key, self.signing_key])
        return sha256(_FINGERPRINT_PREFIX + packed)[:FINGERPRINT_BYTES]

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this pair's Ed25519 key made `signature` over `message`."""
        return signature_is_valid(self.signing_key, message, signature)


@dataclass(frozen=True, slots=True)
class IdentityKeys:
    """Our own pair with its private halves. Made by `generate` or `from_private`."""

    public: PublicIdentity
    _agreement_private: bytes = field(repr=False)
    _signing_secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> IdentityKeys:
        """A fresh pair."""
        return cls.from_private(make_agreement_private(random), random(KEY_BYTES))

    @classmethod
    def from_private(cls, agreement_private: bytes, signing_private: bytes) -> IdentityKeys:
        """The pair with these private halves: X25519 32 bytes; Ed25519 the seed (32) or seed ‖ public (64).

        Raises ValueError naming what is wrong, never the value.
        """
        if len(agreement_private) != KEY_BYTES:
            raise ValueError(f"the X25519 private key must be {KEY_BYTES} bytes")
        if len(signing_private) not in (KEY_BYTES, SIGNING_SECRET_BYTES):
            raise ValueError("the Ed25519 private key must be 32 bytes (seed) or 64 (seed and public key)")
        secret = signing_secret(signing_private[:KEY_BYTES])
        if len(signing_private) == SIGNING_SECRET_BYTES and not equal(secret, signing_private):
            raise ValueError("the Ed25519 private key's public half does not belong to its seed")
        public = PublicIdentity(agreement_public(agreement_private), secret[KEY_BYTES:])
        return cls(public, agreement_private, secret)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature over `message`, 64 bytes."""
        return sign(self._signing_secret, message)

    def agree(self, public: bytes) -> bytes:
        """X25519 of our identity key with `public`. Raises Unreadable `malformed` for a refused key."""
        return agree(self._agreement_private, public)

    def private_halves(self) -> tuple[bytes, bytes]:
        """X25519 private (32) and Ed25519 seed (32), for the keystore and nothing else."""
        return self._agreement_private, self._signing_secret[:KEY_BYTES]


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """The device that we are. An agent has one, whose `device_id` is its agent id."""

    owner_id: str
    device_id: str
    identity: IdentityKeys
