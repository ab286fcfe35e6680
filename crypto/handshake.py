"""X3DH (PROTOCOL §5.5): the shared secret that a session starts from, for both sides, and the session's id.

Four agreements where the responder had a one-time prekey, three otherwise. The identities of both owners
are not in the secret but in the ratchet's associated data and in the session's id, in the initiator's order.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crypto.identity import IdentityKeys, PublicIdentity
from crypto.msgpack import Bytes32, Started, Unsigned32
from crypto.prekeys import Bundle, OneTimePrekey, SignedPrekey
from crypto.primitives import (
    KEY_BYTES,
    Random,
    agree,
    agreement_public,
    check_agreement_key,
    hkdf_sha256,
    make_agreement_private,
    sha256,
)

SESSION_ID_BYTES: Final = 16

_INFO: Final = b"hashee-x3dh-v1"
_DOMAIN: Final = b"\xff" * 32
_ZERO_SALT: Final = bytes(32)
_SESSION_PREFIX: Final = b"hashee-session-v1\x00"


class Handshake(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What every message of the initiator carries until one has been decrypted in the session."""

    identity_key: Bytes32
    signing_key: Bytes32
    ephemeral_key: Bytes32
    started: Started
    signed_prekey_id: Unsigned32
    one_time_prekey_id: Unsigned32 | None = None

    def check_keys(self) -> None:
        """Refuse (`malformed`) public keys that §5 "Bytes" refuses."""
        PublicIdentity.checked(self.identity_key, self.signing_key)
        check_agreement_key(self.ephemeral_key)

    def is_by(self, pinned: PublicIdentity) -> bool:
        """Whether it names exactly the pinned pair."""
        return self.identity_key == pinned.agreement_key and self.signing_key == pinned.signing_key


def associated_data(initiator: PublicIdentity, responder: PublicIdentity) -> bytes:
    """AD of §5.4: both pairs, 128 bytes, the initiator's first on both sides."""
    return initiator.agreement_key + initiator.signing_key + responder.agreement_key + responder.signing_key


def session_id(ad: bytes, ephemeral_key: bytes, started: int) -> bytes:
    """The 16 bytes that select a session on the wire; `started` in ms."""
    return sha256(_SESSION_PREFIX + ad + ephemeral_key + started.to_bytes(8, "big"))[:SESSION_ID_BYTES]


def initiate(identity: IdentityKeys, bundle: Bundle, random: Random) -> tuple[bytes, bytes]:
    """(SK, EK_a public) against a bundle that `check_bundle` has let through."""
    ephemeral = make_agreement_private(random)
    agreements = (
        identity.agree(bundle.signed_prekey)
        + agree(ephemeral, bundle.identity.agreement_key)
        + agree(ephemeral, bundle.signed_prekey)
    )
    if bundle.one_time_prekey is not None:
        agreements += agree(ephemeral, bundle.one_time_prekey)
    return shared_secret(agreements), agreement_public(ephemeral)


def respond(
    identity: IdentityKeys, handshake: Handshake, signed: SignedPrekey, one_time: OneTimePrekey | None
) -> bytes:
    """SK, from the private halves that the handshake names."""
    agreements = (
        agree(signed.private, handshake.identity_key)
        + identity.agree(handshake.ephemeral_key)
        + agree(signed.private, handshake.ephemeral_key)
    )
    if one_time is not None:
        agreements += agree(one_time.private, handshake.ephemeral_key)
    return shared_secret(agreements)


def shared_secret(agreements: bytes) -> bytes:
    """SK from DH1 ‖ DH2 ‖ DH3 [‖ DH4]."""
    return hkdf_sha256(ikm=_DOMAIN + agreements, salt=_ZERO_SALT, info=_INFO, length=KEY_BYTES)


__all__ = [
    "Handshake",
    "associated_data",
    "initiate",
    "respond",
    "session_id",
    "shared_secret",
]
