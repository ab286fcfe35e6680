"""The peers of the crypto benchmark: PyPI `DoubleRatchet`, as its authors recommend it, and `vodozemac`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import vodozemac
from doubleratchet import DoubleRatchet, EncryptedMessage, Header
from doubleratchet.recommended import (
    HashFunction,
    aead_aes_hmac,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)

BATCH = 300
ROUNDS = 9


class _Ratchet(DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        return (
            associated_data
            + header.ratchet_pub
            + header.previous_sending_chain_length.to_bytes(4, "big")
            + header.sending_chain_length.to_bytes(4, "big")
        )


class _RootKdf(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench root"


class _ChainKdf(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class _Aead(aead_aes_hmac.AEAD):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench message"


def double_ratchet_us(message: bytes) -> dict[str, float]:
    """Encrypt, decrypt in order, and one way of a ping-pong, in µs."""
    return asyncio.run(_double_ratchet(message))


async def _double_ratchet(message: bytes) -> dict[str, float]:
    settings: dict[str, Any] = {
        "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
        "root_chain_kdf": _RootKdf,
        "message_chain_kdf": _ChainKdf,
        "message_chain_constant": b"\x01\x02",
        "dos_protection_threshold": 1000,
        "max_num_skipped_message_keys": 2000,
        "aead": _Aead,
        "shared_secret": os.urandom(32),
        "associated_data": b"",
    }
    curve = diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet
    private = os.urandom(32)
    alice, first = await _Ratchet.encrypt_initial_message(
        recipient_ratchet_pub=curve._derive_pub(private), message=message, **settings
    )
    bob, _ = await _Ratchet.decrypt_initial_message(own_ratchet_priv=private, message=first, **settings)
    encrypt, decrypt, pingpong = [], [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter_ns()
        sealed: list[EncryptedMessage] = [await alice.encrypt_message(message, b"") for _ in range(BATCH)]
        middle = time.perf_counter_ns()
        for one in sealed:
            await bob.decrypt_message(one, b"")
        end = time.perf_counter_ns()
        for _ in range(BATCH // 4):
            await alice.decrypt_message(await bob.encrypt_message(message, b""), b"")
            alice, bob = bob, alice
        last = time.perf_counter_ns()
        encrypt.append((middle - begin) / BATCH / 1000)
        decrypt.append((end - middle) / BATCH / 1000)
        pingpong.append((last - end) / (BATCH // 4) / 1000)
    return _figures(encrypt, decrypt, pingpong)


def vodozemac_us(message: bytes) -> dict[str, float]:
    """The same through Olm."""
    ours, theirs = vodozemac.Account(), vodozemac.Account()
    theirs.generate_one_time_keys(1)
    (one_time,) = theirs.one_time_keys.values()
    alice = ours.create_outbound_session(theirs.curve25519_key, one_time)
    first = alice.encrypt(message).to_pre_key()
    assert first is not None
    bob, _ = theirs.create_inbound_session(ours.curve25519_key, first)
    alice.decrypt(bob.encrypt(message))
    encrypt, decrypt, pingpong = [], [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter_ns()
        sealed = [alice.encrypt(message) for _ in range(BATCH)]
        middle = time.perf_counter_ns()
        for one in sealed:
            bob.decrypt(one)
        end = time.perf_counter_ns()
        for _ in range(BATCH // 4):
            alice.decrypt(bob.encrypt(message))
            alice, bob = bob, alice
        last = time.perf_counter_ns()
        encrypt.append((middle - begin) / BATCH / 1000)
        decrypt.append((end - middle) / BATCH / 1000)
        pingpong.append((last - end) / (BATCH // 4) / 1000)
    return _figures(encrypt, decrypt, pingpong)


def _figures(encrypt: list[float], decrypt: list[float], pingpong: list[float]) -> dict[str, float]:
    return {
        "encrypt_us": round(sorted(encrypt)[ROUNDS // 2], 2),
        "decrypt_us": round(sorted(decrypt)[ROUNDS // 2], 2),
        "pingpong_us": round(sorted(pingpong)[ROUNDS // 2], 2),
    }
