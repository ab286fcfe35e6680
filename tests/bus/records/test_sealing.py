"""Sealed values against PyNaCl's own functions: bus/records/sealing.py calls libsodium without them."""

import os
import subprocess
import sys

import msgspec
import pytest
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)

from bus.records.sealing import BusKey, SealBroken

pytestmark = pytest.mark.pure

KEY = bytes(range(32))
PLACE = ("job", 7, "0193…")
HEADER = b"\x01\x00\x00\x00\x05"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1000, 100_000])
def test_what_is_sealed_is_what_libsodium_says_it_is_both_ways(length: int) -> None:
    plaintext, data = os.urandom(length), HEADER + msgspec.msgpack.encode(PLACE)
    sealed = BusKey(KEY, 5).seal(plaintext, *PLACE)
    assert len(sealed) == length + 45
    assert sealed[:5] == HEADER
    assert crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[29:], data, sealed[5:29], KEY) == plaintext
    nonce = os.urandom(24)
    theirs = HEADER + nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, data, nonce, KEY)
    assert BusKey(KEY, 5).open(theirs, *PLACE) == plaintext


def test_every_changed_byte_every_length_and_another_place_or_key_are_refused() -> None:
    key = BusKey(KEY, 5)
    sealed = key.seal(b"plaintext", *PLACE)
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    shortened = [sealed[:length] for length in range(len(sealed))]
    for broken in (*changed, *shortened, sealed + b"\x00"):
        with pytest.raises(SealBroken):
            key.open(broken, *PLACE)
    for other, place in ((key, ("job", 8, "0193…")), (BusKey(bytes(32), 5), PLACE)):
        with pytest.raises(SealBroken):
            other.open(sealed, *place)


def test_neither_text_nor_a_buffer_is_sealed_or_opened() -> None:
    key = BusKey(KEY)
    with pytest.raises(TypeError):
        key.seal("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        key.open(bytearray(key.seal(b"")))  # type: ignore[arg-type]


def test_libsodium_has_been_made_ready_where_nothing_else_uses_it() -> None:
    """`sodium_init` says 1 when it was called before."""
    says = "import bus.records.sealing; from nacl._sodium import lib; print(lib.sodium_init())"
    assert subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout.split() == ["1"]
