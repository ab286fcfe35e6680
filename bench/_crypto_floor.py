"""The floor of the crypto benchmark: each operation as the bare sequence of primitives it cannot do without.

Straight calls into the libraries on prepared values, one after the other as the operation needs them; no
state, no headers, no checks, no encoding but base64.
"""

from __future__ import annotations

import base64
import hashlib
import os

import nacl.bindings as sodium
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SHA256 = SHA256()


class Floor:
    """Prepared inputs of one size, and the bare operations on them."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.key = os.urandom(32)
        self.salt = os.urandom(16)
        self.nonce = os.urandom(12)
        self.aad = os.urandom(200)
        self.sealed = AESGCM(self.key).encrypt(self.nonce, message, self.aad)
        self.sealed_key = AESGCM(self.key).encrypt(self.nonce, self.key, self.aad)
        self.private = os.urandom(32)
        self.public = sodium.crypto_scalarmult_base(os.urandom(32))
        self.verify_key, self.sign_key = sodium.crypto_sign_seed_keypair(os.urandom(32))
        self.body = os.urandom(1_800)
        self.signed = sodium.crypto_sign(self.body, self.sign_key)
        self.text = base64.b64encode(self.signed)

    def message_key(self) -> None:
        """One chain step and one derivation."""
        one = HMAC(self.key, _SHA256)
        two = one.copy()
        one.update(b"\x01")
        two.update(b"\x02")
        one.finalize()
        two.finalize()
        HKDF(_SHA256, 44, self.salt, b"hashee-ratchet-message-v1").derive(self.key)

    def encrypt(self) -> None:
        os.urandom(16)
        self.message_key()
        AESGCM(self.key).encrypt(self.nonce, self.message, self.aad)

    def decrypt(self) -> None:
        self.message_key()
        AESGCM(self.key).decrypt(self.nonce, self.sealed, self.aad)

    def key_seal_open(self) -> None:
        os.urandom(16)
        self.message_key()
        AESGCM(self.key).encrypt(self.nonce, self.key, self.aad)
        self.message_key()
        AESGCM(self.key).decrypt(self.nonce, self.sealed_key, self.aad)

    def envelope_encrypt(self) -> None:
        os.urandom(44)
        AESGCM(self.key).encrypt(self.nonce, self.message, self.aad)
        hashlib.sha256(self.sealed).digest()
        os.urandom(16)
        self.message_key()
        AESGCM(self.key).encrypt(self.nonce, self.key, self.aad)
        base64.b64encode(sodium.crypto_sign(self.body, self.sign_key))

    def envelope_decrypt(self) -> None:
        sodium.crypto_sign_open(base64.b64decode(self.text), self.verify_key)
        hashlib.sha256(self.sealed).digest()
        self.message_key()
        AESGCM(self.key).decrypt(self.nonce, self.sealed_key, self.aad)
        AESGCM(self.key).decrypt(self.nonce, self.sealed, self.aad)

    def root_step(self) -> None:
        sodium.crypto_scalarmult(self.private, self.public)
        HKDF(_SHA256, 64, self.key, b"hashee-ratchet-root-v1").derive(self.key)

    def pingpong(self) -> None:
        sodium.crypto_scalarmult_base(self.private)
        self.root_step()
        self.encrypt()
        self.root_step()
        self.decrypt()
