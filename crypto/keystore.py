"""How identity keys look outside: keystore file, environment lines, fingerprints, backups under a passphrase.

Only encodings: what is read and written, and with which permissions, is the command line's business. No
error text holds a key, a passphrase or any other content.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from crypto import strict_base64
from crypto.errors import Unreadable
from crypto.identity import FINGERPRINT_BYTES, IdentityKeys
from crypto.primitives import NONCE_BYTES, Random, aead_open, aead_seal, argon2id
from crypto.words import WORDS

X25519_VARIABLE: Final = "HASHEE_X25519_PRIVATE_BASE64"
ED25519_VARIABLE: Final = "HASHEE_ED25519_PRIVATE_BASE64"

ARGON2_MEMORY_KIB: Final = 65_536
ARGON2_ITERATIONS: Final = 3
ARGON2_LANES: Final = 4
"""OWASP's larger setting: about 0.1 s and 64 MiB for each guess at a passphrase."""

SALT_BYTES: Final = 16

_KEYSTORE_FORMAT: Final = "hashee-keystore-v1"
_BACKUP_FORMAT: Final = "hashee-backup-v1"


class KeystoreError(ValueError):
    """A keystore or backup is not what it should be; the text says which part, never its content."""


class WrongPassphrase(KeystoreError):
    """The passphrase does not open this backup, or the backup has been changed."""


class Keystore(msgspec.Struct, frozen=True):
    """What `keystore.json` holds. The repr shows no key."""

    agent_id: str
    identity: IdentityKeys


class _KeystoreFile(msgspec.Struct):
    format: str
    agent_id: str
    x25519_private: str
    ed25519_private: str


class _BackupFile(msgspec.Struct):
    format: str
    salt: str
    nonce: str
    ciphertext: str


def encode_keystore(keystore: Keystore) -> bytes:
    """The bytes of `keystore.json`; they hold private keys."""
    agreement, signing = keystore.identity.private_halves()
    public = keystore.identity.public
    fields = {
        "format": _KEYSTORE_FORMAT,
        "agent_id": keystore.agent_id,
        "x25519_private": strict_base64.encode(agreement),
        "ed25519_private": strict_base64.encode(signing),
        "x25519_public": strict_base64.encode(public.agreement_key),
        "ed25519_public": strict_base64.encode(public.signing_key),
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


def decode_keystore(data: bytes) -> Keystore:
    """The inverse of `encode_keystore`. Raises KeystoreError."""
    try:
        stored = msgspec.json.decode(data, type=_KeystoreFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeystoreError("the keystore is not the JSON that `keys generate` writes") from None
    if stored.format != _KEYSTORE_FORMAT:
        raise KeystoreError(f"the keystore's format is not {_KEYSTORE_FORMAT}")
    try:
        identity = IdentityKeys.from_private(
            strict_base64.decode(stored.x25519_private), strict_base64.decode(stored.ed25519_private)
        )
    except Unreadable:
        raise KeystoreError("a key in the keystore is not standard padded base64") from None
    except ValueError as error:
        raise KeystoreError(str(error)) from None
    return Keystore(stored.agent_id, identity)


def environment_lines(identity: IdentityKeys) -> tuple[str, str]:
    """`NAME=value` for both private keys, as the settings read them."""
    agreement, signing = identity.private_halves()
    return (
        f"{X25519_VARIABLE}={strict_base64.encode(agreement)}",
        f"{ED25519_VARIABLE}={strict_base64.encode(signing)}",
    )


def fingerprint_words(fingerprint: bytes) -> str:
    """The 16 bytes as 16 words of `crypto.words`, one each."""
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes")
    return " ".join(WORDS[byte] for byte in fingerprint)


def fingerprint_hex(fingerprint: bytes) -> str:
    """The 16 bytes as eight groups of four hexadecimal digits."""
    return fingerprint.hex(" ", 2)


def seal_backup(contents: bytes, passphrase: str, random: Random) -> bytes:
    """`contents` under a passphrase (Argon2id, AES-256-GCM), as one JSON document. Raises KeystoreError."""
    if not passphrase:
        raise KeystoreError("the passphrase is empty")
    salt, nonce = random(SALT_BYTES), random(NONCE_BYTES)
    ciphertext = aead_seal(_passphrase_key(passphrase, salt), nonce, contents, _BACKUP_FORMAT.encode())
    fields = {
        "format": _BACKUP_FORMAT,
        "salt": strict_base64.encode(salt),
        "nonce": strict_base64.encode(nonce),
        "ciphertext": strict_base64.encode(ciphertext),
    }
    return json.dumps(fields).encode() + b"\n"


def open_backup(data: bytes, passphrase: str) -> bytes:
    """The contents of `seal_backup`. Raises WrongPassphrase, or KeystoreError where it is no backup."""
    try:
        stored = msgspec.json.decode(data, type=_BackupFile)
        salt = strict_base64.decode(stored.salt, SALT_BYTES)
        nonce = strict_base64.decode(stored.nonce, NONCE_BYTES)
        ciphertext = strict_base64.decode(stored.ciphertext)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Unreadable):
        raise KeystoreError("this is not a backup that `keys backup` wrote") from None
    if stored.format != _BACKUP_FORMAT:
        raise KeystoreError(f"the backup's format is not {_BACKUP_FORMAT}")
    try:
        return aead_open(_passphrase_key(passphrase, salt), nonce, ciphertext, _BACKUP_FORMAT.encode())
    except Unreadable:
        raise WrongPassphrase("the passphrase is wrong, or the backup has been changed") from None


def _passphrase_key(passphrase: str, salt: bytes) -> bytes:
    return argon2id(
        passphrase.encode(),
        salt,
        memory_kib=ARGON2_MEMORY_KIB,
        iterations=ARGON2_ITERATIONS,
        lanes=ARGON2_LANES,
    )
