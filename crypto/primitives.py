"""The bare primitives, each behind one function, with the refusals that neither library makes.

Every HMAC, HKDF, AEAD, agreement and signature of the project goes through here, so that the Wycheproof
vectors and the nonce recorder of the tests see what really runs. Symmetric work is done by `cryptography`,
X25519 and Ed25519 by libsodium (PyNaCl), as measured in docs/protocol-crypto.md. Nothing else in crypto imports either.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import nacl.bindings as sodium
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import BadSignatureError
from nacl.exceptions import RuntimeError as SodiumError

from crypto.errors import Reason, Unreadable, malformed

Random = Callable[[int], bytes]
"""`random(n)` gives n bytes nobody can guess: `os.urandom` in production, a seeded stream in known answers."""

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SIGNATURE_BYTES = 64
SIGNING_SECRET_BYTES = 64  # libsodium's form: seed ‖ public

_SHA256 = SHA256()  # an algorithm's name, without state
_FIELD_PRIME = 2**255 - 19
_FIELD_TOP = b"\xff" * 30
_FIELD_TOP_LOW_BYTE = 0xED  # 2²⁵⁵−19 ends, little-endian first byte, in 0xED

# The eight points of small order of edwards25519 in their canonical encodings, by y. A signature under one of
# them can be valid for every message (RFC 8032 §5.1.7 leaves the check to the verifier).
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _FIELD_PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    )
)
_SIGN_BIT = 1 << 255


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), 32 bytes."""
    context = HMAC(key, _SHA256)
    context.update(message)
    return context.finalize()


def hmac_sha256_pair(key: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """HMAC-SHA256 of two messages under one key, which is scheduled once."""
    context = HMAC(key, _SHA256)
    other = context.copy()
    context.update(first)
    other.update(second)
    return context.finalize(), other.finalize()


def hkdf_sha256(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869), extract and expand; an empty salt is 32 zero bytes, as the RFC says."""
    return HKDF(_SHA256, length, salt, info).derive(ikm)


def argon2id(secret: bytes, salt: bytes, *, memory_kib: int, iterations: int, lanes: int) -> bytes:
    """Argon2id (RFC 9106), 32 bytes: a key from a passphrase."""
    kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(secret)


def sha256(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def aead_seal(key: bytes, nonce: bytes, plaintext: bytes | memoryview, aad: bytes) -> bytes:
    """AES-256-GCM: ciphertext ‖ tag 16, under a key of 32 and a nonce of 12 bytes."""
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def aead_open(key: bytes, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes) -> bytes:
    """The plaintext of `aead_seal`. Raises Unreadable `bad_ciphertext`."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise Unreadable(Reason.BAD_CIPHERTEXT, "the tag does not fit") from None


def aead_open_into(key: bytes, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, into: memoryview) -> None:
    """`aead_open` into memory as long as the plaintext. Raises Unreadable `bad_ciphertext`; what stands in the memory then is nobody's."""
    try:
        AESGCM(key).decrypt_into(nonce, ciphertext, aad, into)
    except InvalidTag:
        raise Unreadable(Reason.BAD_CIPHERTEXT, "the tag does not fit") from None


def equal(one: bytes, other: bytes) -> bool:
    """Comparison whose time does not depend on where the two differ."""
    return hmac.compare_digest(one, other)


def check_agreement_key(key: bytes) -> None:
    """Refuse (`malformed`) an X25519 public key of a wrong length, with bit 255 set or ≥ 2²⁵⁵−19."""
    if len(key) != KEY_BYTES:
        raise malformed("X25519 public key: wrong length")
    top = key[31]
    if top < 0x7F:
        return
    if top > 0x7F or (key[1:31] == _FIELD_TOP and key[0] >= _FIELD_TOP_LOW_BYTE):
        raise malformed("X25519 public key: not canonical")


def check_signing_key(key: bytes) -> None:
    """Refuse (`malformed`) an Ed25519 public key of a wrong length, of small order or not canonical."""
    if len(key) != KEY_BYTES:
        raise malformed("Ed25519 public key: wrong length")
    y = int.from_bytes(key, "little") & (_SIGN_BIT - 1)
    if y >= _FIELD_PRIME:
        raise malformed("Ed25519 public key: not canonical")
    if y in _SMALL_ORDER_Y:
        raise malformed("Ed25519 public key: small order")


def make_agreement_private(random: Random) -> bytes:
    """A fresh X25519 private key, 32 bytes."""
    return random(KEY_BYTES)


def agreement_public(private: bytes) -> bytes:
    """The X25519 public key, 32 bytes."""
    return sodium.crypto_scalarmult_base(private)


def agree(private: bytes, public: bytes) -> bytes:
    """X25519. Raises Unreadable `malformed` for a key that is not canonical and for an all-zero result."""
    check_agreement_key(public)
    try:
        return sodium.crypto_scalarmult(private, public)
    except SodiumError:
        raise malformed("X25519: the result is all zero") from None


def signing_secret(seed: bytes) -> bytes:
    """Seed 32 → seed ‖ public 64, the form that signs without deriving the public key again."""
    return sodium.crypto_sign_seed_keypair(seed)[1]


def sign(secret: bytes, message: bytes) -> bytes:
    """Ed25519 signature, 64 bytes; `secret` as `signing_secret` makes it."""
    return sodium.crypto_sign(message, secret)[:SIGNATURE_BYTES]


def signature_is_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519 verification (libsodium: canonical S, no small-order key or R)."""
    if len(signature) != SIGNATURE_BYTES or len(public) != KEY_BYTES:
        return False
    try:
        sodium.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True
