"""Sealed values: what stands in Redis of content and keys (DESIGN rule 19, PROTOCOL §5.11).

XChaCha20-Poly1305; a sealed value is version u8 ‖ key epoch u32 ‖ nonce 24 ‖ ciphertext and tag. The associated data is a
msgpack list that names where the value belongs, so that a value moved to another place does not open.
Keys are types of their own; printing one shows nothing.
"""

import os
from typing import Self

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

KEY_BYTES = 32
NONCE_BYTES = 24
FORMAT_VERSION = 1
HEADER_BYTES = 1 + 4


class SealBroken(Exception):
    """A sealed value does not open: another key, another place, or changed bytes."""


class SealingKey:
    """A 32-byte key that seals values; its repr shows nothing of it."""

    __slots__ = ("_epoch", "_key")

    def __init__(self, key: bytes, epoch: int = 0) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._epoch = epoch

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @property
    def epoch(self) -> int:
        """Key epoch: how often the store secret was rotated before this key. Every sealed value tells its own."""
        return self._epoch

    def seal(self, plaintext: bytes, *place: str | int) -> bytes:
        """Seal `plaintext` to the place named by `place`; 45 bytes longer than the plaintext."""
        header = bytes([FORMAT_VERSION]) + self._epoch.to_bytes(4, "big")
        nonce = os.urandom(NONCE_BYTES)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, header + _place(place), nonce, self._key)
        return header + nonce + sealed

    def open(self, sealed: bytes, *place: str | int) -> bytes:
        """Open what `seal` made for the same place; raises SealBroken."""
        header, nonce = sealed[:HEADER_BYTES], sealed[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        if len(nonce) != NONCE_BYTES or header[0] != FORMAT_VERSION:
            raise SealBroken("not a sealed value of a version that this program knows")
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed[HEADER_BYTES + NONCE_BYTES :], header + _place(place), nonce, self._key
            )
        except CryptoError:
            raise SealBroken("a sealed value does not open with this store secret at this place") from None

    def export(self) -> bytes:
        """The raw 32 bytes, for the descriptor that hands the bus key to a worker."""
        return self._key


class BusKey(SealingKey):
    """Seals jobs and replies; the only key that a worker has."""


class StateKey(SealingKey):
    """Seals sessions, pins and prekeys; never leaves the supervisor."""


class StoreKeys:
    """The keys that come from the store secret (PROTOCOL §5.11), one HKDF-SHA256 `info` each."""

    def __init__(self, state: StateKey, bus: BusKey, identifier: bytes, ledger: bytes) -> None:
        self.state = state
        self.bus = bus
        self.identifier = identifier
        self.ledger = ledger

    def __repr__(self) -> str:
        return "StoreKeys(…)"

    @classmethod
    def derive(cls, store_secret: bytes, epoch: int = 0) -> Self:
        """From the 32-byte store secret, for sealing under this key epoch (which the store tells: bus/seal.py)."""
        if len(store_secret) != KEY_BYTES:
            raise ValueError(f"a store secret has {KEY_BYTES} bytes, not {len(store_secret)}")

        def derived(name: str) -> bytes:
            info = f"hashee-store-{name}-v1".encode()
            return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(store_secret)

        state, bus = StateKey(derived("state"), epoch), BusKey(derived("bus"), epoch)
        return cls(state, bus, derived("id"), derived("ledger"))

    def carrying(self, identifier: bytes, ledger: bytes) -> "StoreKeys":
        """These sealing keys with the identifier and ledger keys that the store was begun with."""
        return StoreKeys(self.state, self.bus, identifier, ledger)


def epoch_of(sealed: bytes) -> int:
    """The key epoch that a sealed value tells. Raises SealBroken."""
    if len(sealed) < HEADER_BYTES or sealed[0] != FORMAT_VERSION:
        raise SealBroken("not a sealed value of a version that this program knows")
    return int.from_bytes(sealed[1:HEADER_BYTES], "big")


def _place(place: tuple[str | int, ...]) -> bytes:
    return msgspec.msgpack.encode(place)
