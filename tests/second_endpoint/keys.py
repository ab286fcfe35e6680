"""Primitives, identities and prekeys (crypto §1, §2, §6; the bundle of wire §5.1)."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

import nacl.bindings as sodium
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.exceptions import CryptoError

from tests.second_endpoint.encoding import Random, from_base64, pack, to_base64
from tests.second_endpoint.errors import Unreadable

PRIME = 2**255 - 19


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def hmac256(key: bytes, message: bytes) -> bytes:
    """32 bytes."""
    return hmac.digest(key, message, "sha256")


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 over SHA-256."""
    key, made, block = hmac256(salt, ikm), b"", b""
    while len(made) < length:
        block = hmac256(key, block + info + bytes([len(made) // 32 + 1]))
        made += block
    return made[:length]


def seal(derived: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-256-GCM under `derived` = key 32 ‖ nonce 12."""
    return AESGCM(derived[:32]).encrypt(derived[32:], plaintext, aad)


def unseal(derived: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The inverse of `seal`. Raises Unreadable `bad_ciphertext`."""
    try:
        return AESGCM(derived[:32]).decrypt(derived[32:], ciphertext, aad)
    except InvalidTag:
        raise Unreadable("bad_ciphertext") from None


def public_of(private: bytes) -> bytes:
    """X25519."""
    return sodium.crypto_scalarmult_base(private)


def agree(private: bytes, public: bytes) -> bytes:
    """X25519. Raises Unreadable `malformed` for an all-zero result."""
    try:
        return sodium.crypto_scalarmult(private, public)
    except (CryptoError, RuntimeError):
        raise Unreadable("malformed", "agreement") from None


def checked_x25519(key: bytes) -> bytes:
    """The key, if it is a canonical one. Raises Unreadable `malformed`."""
    if len(key) != 32 or int.from_bytes(key, "little") >= PRIME:
        raise Unreadable("malformed", "X25519 key")
    return key


@dataclass(frozen=True)
class Pair:
    """An owner's public identity."""

    x25519: bytes
    ed25519: bytes

    @property
    def both(self) -> bytes:
        """As it stands in AD."""
        return self.x25519 + self.ed25519

    def check_signature(self, message: bytes, signature: bytes) -> None:
        """Raises Unreadable `bad_signature`. (libsodium refuses keys of small order by itself.)"""
        try:
            sodium.crypto_sign_open(signature + message, self.ed25519)
        except (CryptoError, ValueError):
            raise Unreadable("bad_signature") from None

    @classmethod
    def checked(cls, x25519: bytes, ed25519: bytes) -> "Pair":
        """A pair that came from outside. Raises Unreadable `malformed`."""
        if len(ed25519) != 32 or int.from_bytes(ed25519, "little") & (2**255 - 1) >= PRIME:
            raise Unreadable("malformed", "Ed25519 key")
        return cls(checked_x25519(x25519), ed25519)


@dataclass(frozen=True)
class Identity:
    """Our own pair, private halves and all."""

    private: bytes
    seed: bytes

    @property
    def pair(self) -> Pair:
        """The public halves."""
        return Pair(public_of(self.private), sodium.crypto_sign_seed_keypair(self.seed)[0])

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return sodium.crypto_sign(message, sodium.crypto_sign_seed_keypair(self.seed)[1])[:64]


@dataclass
class OwnPrekeys:
    """The private halves of what a device has published."""

    signed: dict[int, bytes]
    one_time: dict[int, bytes]


def prekey_message(owner_id: str, device_id: str, x25519: bytes, prekey_id: int, prekey: bytes) -> bytes:
    """What a signed prekey's signature is over."""
    return b"hashee-spk-v1\0" + pack([owner_id, device_id, x25519, prekey_id, prekey])


@dataclass(frozen=True)
class Bundle:
    """What another device has published, checked."""

    owner_id: str
    device_id: str
    pair: Pair
    signed_id: int
    signed: bytes
    one_time_id: int | None
    one_time: bytes | None

    @classmethod
    def read(cls, entry: Mapping[str, object], owner_id: str, pinned: Pair | None) -> "Bundle":
        """Raises Unreadable `malformed`, `key_changed`, `bad_signature`. `pinned` None: first sight."""
        signed, one_time = entry.get("signed_prekey"), entry.get("one_time_prekey")
        device_id = entry.get("device_id")
        if not isinstance(signed, dict) or not isinstance(device_id, str):
            raise Unreadable("malformed", "bundle")
        pair = Pair.checked(from_base64(entry.get("public_key")), from_base64(entry.get("signing_public_key")))
        if pinned is not None and pair != pinned:
            raise Unreadable("key_changed")
        key, number = checked_x25519(from_base64(signed.get("public_key"))), signed.get("id")
        if not isinstance(number, int):
            raise Unreadable("malformed", "prekey id")
        pair.check_signature(
            prekey_message(owner_id, device_id, pair.x25519, number, key), from_base64(signed.get("signature"), 64)
        )
        if not isinstance(one_time, dict):
            return cls(owner_id, device_id, pair, number, key, None, None)
        once = checked_x25519(from_base64(one_time.get("public_key")))
        return cls(owner_id, device_id, pair, number, key, int(one_time["id"]), once)


def make_registration(
    owner_id: str, device_id: str, identity: Identity, prekeys: OwnPrekeys, *, count: int, random: Random
) -> dict[str, object]:
    """The body that registers a device: its signed prekey, made if there is none, and so many new one-time prekeys."""
    if not prekeys.signed:
        prekeys.signed[1] = random(32)
    number = max(prekeys.signed)
    public = public_of(prekeys.signed[number])
    signature = identity.sign(prekey_message(owner_id, device_id, identity.pair.x25519, number, public))
    first = max(prekeys.one_time, default=0) + 1
    fresh = {first + place: random(32) for place in range(count)}
    prekeys.one_time.update(fresh)
    return {
        "device_id": device_id,
        "public_key": to_base64(identity.pair.x25519),
        "signing_public_key": to_base64(identity.pair.ed25519),
        "signed_prekey": {"id": number, "public_key": to_base64(public), "signature": to_base64(signature)},
        "one_time_prekeys": [{"id": one, "public_key": to_base64(public_of(key))} for one, key in fresh.items()],
    }
