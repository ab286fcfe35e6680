"""Keystore file, environment lines, fingerprints and backups; wrong input fails without showing anything."""

from __future__ import annotations

import pytest

from crypto import strict_base64
from crypto.identity import IdentityKeys
from crypto.keystore import (
    Keystore,
    KeystoreError,
    WrongPassphrase,
    decode_keystore,
    encode_keystore,
    environment_lines,
    fingerprint_hex,
    fingerprint_words,
    open_backup,
    seal_backup,
)
from crypto.words import WORDS
from tests.crypto.builders import stream

pytestmark = pytest.mark.pure

KEYSTORE = Keystore("22222222-0000-4000-8000-000000000000", IdentityKeys.generate(stream(1)))


def test_a_keystore_round_trips() -> None:
    assert decode_keystore(encode_keystore(KEYSTORE)) == KEYSTORE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"hashee-keystore-v1", b"hashee-keystore-v2"),
        (b'"x25519_private": "', b'"x25519_private": "A'),
        (b'"ed25519_private": "', b'"ed25519_private": "AAAA'),
        (b'"agent_id"', b'"other"'),
        (b"{", b"["),
        (b"hashee", b"\xff"),
    ],
)
def test_a_broken_keystore_is_named_and_not_shown(old: bytes, new: bytes) -> None:
    data = encode_keystore(KEYSTORE).replace(old, new, 1)
    with pytest.raises(KeystoreError) as refused:
        decode_keystore(data)
    for half in KEYSTORE.identity.private_halves():
        assert strict_base64.encode(half)[:20] not in str(refused.value)


def test_environment_lines_hold_what_the_settings_read() -> None:
    agreement, signing = environment_lines(KEYSTORE.identity)
    assert agreement.startswith("HASHEE_X25519_PRIVATE_BASE64=")
    assert signing.startswith("HASHEE_ED25519_PRIVATE_BASE64=")
    halves = [strict_base64.decode(line.split("=", 1)[1], 32) for line in (agreement, signing)]
    assert IdentityKeys.from_private(*halves) == KEYSTORE.identity


def test_fingerprints_as_words_and_hex() -> None:
    fingerprint = bytes(range(240, 256))
    assert fingerprint_words(fingerprint).split() == list(WORDS[240:])
    assert fingerprint_hex(fingerprint) == "f0f1 f2f3 f4f5 f6f7 f8f9 fafb fcfd feff"
    assert len(set(WORDS)) == len(WORDS) == 256
    assert sorted(WORDS) == list(WORDS)
    with pytest.raises(ValueError, match="16 bytes"):
        fingerprint_words(b"")


def test_a_backup_opens_with_its_passphrase_only() -> None:
    backup = seal_backup(b"secret contents", "correct horse", stream(2))
    assert b"secret" not in backup
    assert open_backup(backup, "correct horse") == b"secret contents"
    with pytest.raises(WrongPassphrase):
        open_backup(backup, "correct hors")
    middle = backup.index(b'"ciphertext": "') + 20
    changed = backup[:middle] + (b"A" if backup[middle : middle + 1] != b"A" else b"B") + backup[middle + 1 :]
    with pytest.raises(WrongPassphrase):
        open_backup(changed, "correct horse")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"format":"x","salt":"","nonce":"","ciphertext":""}'])
def test_what_is_no_backup_is_refused_before_the_passphrase_is_tried(data: bytes) -> None:
    with pytest.raises(KeystoreError) as refused:
        open_backup(data, "x")
    assert not isinstance(refused.value, WrongPassphrase)


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(KeystoreError, match="empty"):
        seal_backup(b"x", "", stream(3))
