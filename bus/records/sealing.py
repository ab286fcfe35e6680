"""Seals and opens the values in Redis that hold content or keys (DESIGN rule 19, PROTOCOL §5.11).

XChaCha20-Poly1305; a sealed value is version u8 ‖ key epoch u32 ‖ nonce 24 ‖ ciphertext and tag. The associated data is a
msgpack list that names where the value belongs, so that a value moved to another place does not open.
Keys are types of their own; printing one shows nothing.

libsodium is called directly, without the checks of nacl.bindings at each call, which take twice as long as sealing 1 KiB: here all
lengths are right by construction. Importing nacl.bindings initialises libsodium, which chooses the fastest code for this processor.
"""

import hmac
import os
from typing import Self

import msgspec
import nacl.bindings  # noqa: F401 - libsodium is to be made ready before it is used
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # a compiled module without a stub

from bus.records import ulid

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16
FORMAT_VERSION = 1
HEADER_BYTES = 1 + 4
BODY_FROM = HEADER_BYTES + NONCE_BYTES


class SealBroken(Exception):
    """A sealed value does not open: another key, another place, or changed bytes."""


class SealingKey:
    """A 32-byte key that seals values; its repr shows nothing of it."""

    __slots__ = ("_epoch", "_header", "_key")

    def __init__(self, key: bytes, epoch: int = 0) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = bytes(key)
        self._epoch = epoch
        self._header = bytes([FORMAT_VERSION]) + epoch.to_bytes(4, "big")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @property
    def epoch(self) -> int:
        """Key epoch: how often the store secret was rotated before this key. Every sealed value carries its own."""
        return self._epoch

    def seal(self, plaintext: bytes, *place: str | int) -> bytes:
        """Seals `plaintext` for the place named by `place`; the result is 45 bytes longer."""
        nonce = os.urandom(NONCE_BYTES)
        data = self._header + msgspec.msgpack.encode(place)
        size = len(plaintext)
        sealed = bytearray(size + TAG_BYTES)
        lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
            ffi.from_buffer(sealed), ffi.NULL, plaintext, size, data, len(data), ffi.NULL, nonce, self._key
        )
        return b"".join((self._header, nonce, sealed))

    def open(self, sealed: bytes, *place: str | int) -> bytes:
        """Opens what `seal` made for the same place; raises SealBroken."""
        nonce, body = sealed[HEADER_BYTES:BODY_FROM], sealed[BODY_FROM:]
        if len(nonce) != NONCE_BYTES or sealed[0] != FORMAT_VERSION:
            raise SealBroken("not a sealed value of a version that this program knows")
        data = sealed[:HEADER_BYTES] + msgspec.msgpack.encode(place)
        opened = bytearray(max(0, len(body) - TAG_BYTES))
        failed = len(body) < TAG_BYTES or lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
            ffi.from_buffer(opened), ffi.NULL, ffi.NULL, body, len(body), data, len(data), nonce, self._key
        )
        if failed:
            raise SealBroken("a sealed value does not open with this store secret at this place")
        return bytes(opened)

    def export(self) -> bytes:
        """Returns the raw 32 bytes, for the descriptor that hands the bus key to a worker."""
        return self._key


class BusKey(SealingKey):
    """Seals jobs and replies; the only key that a worker has.

    `identifier`: makes the ids of replies, so that a handler knows under which ones it speaks; b"" where no supervisor has told yet.
    """

    __slots__ = ("identifier",)

    def __init__(self, key: bytes, epoch: int = 0, identifier: bytes = b"") -> None:
        super().__init__(key, epoch)
        self.identifier = identifier

    def card_id(self, time_ms: int, job_id: str, place: str) -> str:
        """Returns the id of the card at a place of a job: a ULID of the message's time, and of HMAC(bus key, job, place) as randomness."""
        drawn = hmac.digest(self._key, f"hashee-card-v1\x00{job_id}\x00{place}".encode(), "sha256")
        return ulid.make(time_ms, drawn[: ulid.RANDOM_BYTES])


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
        """Derives the keys from the 32-byte store secret. `epoch`: the store's key epoch (bus/steps/seal.py)."""
        if len(store_secret) != KEY_BYTES:
            raise ValueError(f"a store secret has {KEY_BYTES} bytes, not {len(store_secret)}")

        def derived(name: str) -> bytes:
            info = f"hashee-store-{name}-v1".encode()
            return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(store_secret)

        state, bus = StateKey(derived("state"), epoch), BusKey(derived("bus"), epoch)
        return cls(state, bus, derived("id"), derived("ledger"))

    def carrying(self, identifier: bytes, ledger: bytes) -> "StoreKeys":
        """Returns these sealing keys with the identifier and ledger keys that the store was begun with."""
        return StoreKeys(self.state, self.bus, identifier, ledger)


def epoch_of(sealed: bytes) -> int:
    """Returns the key epoch in a sealed value. Raises SealBroken."""
    if len(sealed) < HEADER_BYTES or sealed[0] != FORMAT_VERSION:
        raise SealBroken("not a sealed value of a version that this program knows")
    return int.from_bytes(sealed[1:HEADER_BYTES], "big")
