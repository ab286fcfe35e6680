"""The three derivations of the Double Ratchet (PROTOCOL §5.4): root key, chain key, message key.

Each is the published one with the constants of §5.4. Nothing here knows of sessions, headers or order.
"""

from __future__ import annotations

from typing import Final

from crypto.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    aead_open,
    aead_seal,
    hkdf_sha256,
    hmac_sha256_pair,
)

SALT_BYTES: Final = 16

_ROOT_INFO: Final = b"hashee-ratchet-root-v1"
_MESSAGE_INFO: Final = b"hashee-ratchet-message-v1"
_MESSAGE_KEY_STEP: Final = b"\x01"
_CHAIN_KEY_STEP: Final = b"\x02"
_SEALED_BY: Final = KEY_BYTES + NONCE_BYTES


def root_step(root_key: bytes, shared: bytes) -> tuple[bytes, bytes]:
    """KDF_RK: (next root key, chain key), 32 bytes each, from the root key and an agreement's result."""
    both = hkdf_sha256(ikm=shared, salt=root_key, info=_ROOT_INFO, length=2 * KEY_BYTES)
    return both[:KEY_BYTES], both[KEY_BYTES:]


def chain_step(chain_key: bytes) -> tuple[bytes, bytes]:
    """KDF_CK: (message key, next chain key), 32 bytes each."""
    return hmac_sha256_pair(chain_key, _MESSAGE_KEY_STEP, _CHAIN_KEY_STEP)


def seal_under(message_key: bytes, salt: bytes, content_key: bytes, aad: bytes) -> bytes:
    """The content key, sealed: 48 bytes. `salt` is 16 fresh random bytes that go on the wire."""
    derived = hkdf_sha256(message_key, salt, _MESSAGE_INFO, _SEALED_BY)
    return aead_seal(derived[:KEY_BYTES], derived[KEY_BYTES:], content_key, aad)


def open_under(message_key: bytes, salt: bytes, wrapped_key: bytes, aad: bytes) -> bytes:
    """The inverse of `seal_under`. Raises Unreadable `bad_ciphertext`."""
    derived = hkdf_sha256(message_key, salt, _MESSAGE_INFO, _SEALED_BY)
    return aead_open(derived[:KEY_BYTES], derived[KEY_BYTES:], wrapped_key, aad)
