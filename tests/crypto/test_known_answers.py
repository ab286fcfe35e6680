"""The core computes exactly what stands in tests/vectors, and an independent reading of the page agrees.

The second half recomputes each derivation from docs/protocol-crypto.md with nothing but hashlib, hmac and raw
library calls: what another implementation would do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import nacl.bindings as sodium
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto import strict_base64
from crypto.envelope import Expected, open_ratchet, parse_envelope, verify_signature
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import OneTimePrekey, Prekeys, SignedPrekey
from crypto.records import EMPTY_RECORD
from tests.crypto.known_answers import CONVERSATION, DERIVATIONS, TRANSCRIPT, derivations, transcript

pytestmark = pytest.mark.pure


def _kept(path: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_derivation_is_as_kept() -> None:
    assert derivations() == _kept(DERIVATIONS)


def test_the_transcript_is_as_kept() -> None:
    assert transcript() == _kept(TRANSCRIPT)


def test_the_agent_reads_the_kept_transcript_from_its_keys_alone() -> None:
    kept = _kept(TRANSCRIPT)
    own, told = kept["keys"]["agent"], kept["start"]["bundle"]
    identity = IdentityKeys.from_private(_raw(own["x25519_private"]), _raw(own["ed25519_seed"]))
    device = LocalDevice(own["owner_id"], own["device_id"], identity)
    peer = kept["keys"]["alice"]
    pinned = IdentityKeys.from_private(_raw(peer["x25519_private"]), _raw(peer["ed25519_seed"])).public
    signed = SignedPrekey(
        told["signed_prekey_id"],
        _raw(told["signed_prekey_private"]),
        _raw(told["signed_prekey"]),
        _raw(told["signature"]),
        0,
    )
    one_time = OneTimePrekey(
        told["one_time_prekey_id"], _raw(told["one_time_prekey_private"]), _raw(told["one_time_prekey"])
    )
    prekeys = Prekeys({signed.id: signed}, {one_time.id: one_time})
    record = EMPTY_RECORD
    for number in (0, 1):
        message = kept["messages"][number]
        envelope = parse_envelope(message["encrypted_payload"], Expected(CONVERSATION, peer["owner_id"], "phone"))
        verify_signature(envelope, pinned)
        opened = open_ratchet(envelope, device, pinned, record, prekeys, epoch=0, now_ms=kept["start"]["started"])
        record = opened.record
        assert opened.payload == message["payload"]
        assert opened.used_one_time_prekey == (9 if number == 0 else None)


def _raw(text: str) -> bytes:
    return bytes.fromhex(text)


def _hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    key = hmac.digest(salt, ikm, "sha256")
    block, output = b"", b""
    for number in range(1, 1 + -(-length // 32)):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


def _sealed(derived: bytes, content_key: str, aad: bytes) -> str:
    return AESGCM(derived[:32]).encrypt(derived[32:], _raw(content_key), aad).hex()


def test_x3dh_from_the_page() -> None:
    for case in _kept(DERIVATIONS)["x3dh"]:
        base = sodium.crypto_scalarmult_base
        multiply = sodium.crypto_scalarmult
        identity_a = _raw(case["initiator_x25519_private"])
        identity_b = base(_raw(case["responder_x25519_private"]))
        ephemeral, signed = _raw(case["ephemeral_private"]), base(_raw(case["signed_prekey_private"]))
        agreements = multiply(identity_a, signed) + multiply(ephemeral, identity_b) + multiply(ephemeral, signed)
        if case["one_time_prekey_private"] is not None:
            agreements += multiply(ephemeral, base(_raw(case["one_time_prekey_private"])))
        secret = _hkdf(b"\xff" * 32 + agreements, bytes(32), b"hashee-x3dh-v1", 32)
        assert secret.hex() == case["shared_secret"]
        ad = _raw(_kept(DERIVATIONS)["identity"]["associated_data_as_initiator"])
        hashed = b"hashee-session-v1\x00" + ad + base(ephemeral) + case["started"].to_bytes(8, "big")
        assert hashlib.sha256(hashed).hexdigest()[:32] == case["session"]


def test_the_ratchet_from_the_page() -> None:
    case = _kept(DERIVATIONS)["ratchet"]
    shared = sodium.crypto_scalarmult(_raw(case["own_private"]), _raw(case["their_public"]))
    assert shared.hex() == case["shared"]
    both = _hkdf(shared, _raw(case["root_key"]), b"hashee-ratchet-root-v1", 64)
    assert (both[:32].hex(), both[32:].hex()) == (case["next_root_key"], case["chain_key"])
    message_key = hmac.digest(both[32:], b"\x01", "sha256")
    assert message_key.hex() == case["message_key"]
    assert hmac.digest(both[32:], b"\x02", "sha256").hex() == case["next_chain_key"]
    derived = _hkdf(message_key, _raw(case["salt"]), b"hashee-ratchet-message-v1", 44)
    assert _sealed(derived, case["content_key"], _raw(case["aad"])) == case["wrapped_key"]
    public = sodium.crypto_scalarmult_base(_raw(case["own_private"]))
    assert case["header"] == "93c420" + public.hex() + "03" + "cd012c"


def test_the_wraps_from_the_page() -> None:
    wraps = _kept(DERIVATIONS)["wraps"]
    bound_to, direct = _raw(wraps["content_id"]), wraps["direct"]
    recipient = sodium.crypto_scalarmult_base(_raw(direct["recipient_private"]))
    shared = sodium.crypto_scalarmult(_raw(direct["ephemeral_private"]), recipient)
    derived = _hkdf(shared, _raw(direct["ephemeral_key"]) + recipient, b"hashee-wrap-v1", 44)
    assert _sealed(derived, wraps["content_key"], bound_to) == direct["wrapped_key"]
    group = wraps["group"]
    info = b"hashee-group-wrap-v1" + group["group_id"].encode() + group["key_version"].to_bytes(4, "big")
    derived = _hkdf(_raw(group["group_key"]), _raw(group["salt"]), info, 44)
    assert _sealed(derived, wraps["content_key"], bound_to) == group["wrapped_key"]
    stream = wraps["stream"]
    info = b"hashee-stream-wrap-v1" + stream["stream_id"].encode() + stream["seq"].to_bytes(4, "big")
    derived = _hkdf(_raw(stream["stream_key"]), _raw(stream["salt"]), info, 44)
    assert _sealed(derived, wraps["content_key"], bound_to) == stream["wrapped_key"]


def test_content_and_file_from_the_page() -> None:
    case = _kept(DERIVATIONS)["content"]
    plaintext = (case["payload"].encode() + b"\x80").ljust(256, b"\x00")
    nonce, aad = _raw(case["nonce"]), _raw(case["aad"])
    ciphertext = AESGCM(_raw(case["content_key"])).encrypt(nonce, plaintext, aad)
    assert ciphertext.hex() == case["ciphertext"]
    assert hashlib.sha256(aad + nonce + ciphertext).hexdigest() == case["content_id"]
    file = _kept(DERIVATIONS)["file"]
    told = file["attachment"]
    nonce = strict_base64.decode(told["nonce_prefix"]) + bytes(4) + b"\x01"
    aad = b"\x93\xd9\x24" + CONVERSATION.encode() + b"\xa8upload-1" + b"\xae" + b"hashee-file-v1"
    sealed = AESGCM(strict_base64.decode(told["key"])).encrypt(nonce, file["content"].encode(), aad)
    assert sealed.hex() == file["ciphertext"]
    assert hashlib.sha256(sealed).hexdigest() == told["sha256"]
