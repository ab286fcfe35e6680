"""Every applicable Wycheproof case through our own primitives, not through the libraries beneath."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crypto.errors import Reason, Unreadable
from crypto.primitives import (
    NONCE_BYTES,
    aead_open,
    aead_seal,
    agree,
    check_signing_key,
    hkdf_sha256,
    hmac_sha256,
    hmac_sha256_pair,
    signature_is_valid,
)

pytestmark = pytest.mark.pure

VECTORS = Path(__file__).parent.parent / "vectors" / "wycheproof"


def _cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    document = json.loads((VECTORS / f"{name}_test.json").read_text(encoding="utf-8"))
    for group in document["testGroups"]:
        for case in group["tests"]:
            yield group, case


def _hex(case: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(case[key])


def test_x25519_agrees_and_refuses_what_the_protocol_refuses() -> None:
    agreed = refused = 0
    for _, case in _cases("x25519"):
        private, public = _hex(case, "private"), _hex(case, "public")
        must_be_refused = bool({"NonCanonicalPublic", "ZeroSharedSecret"} & set(case["flags"])) or not any(
            _hex(case, "shared")
        )
        if must_be_refused:
            with pytest.raises(Unreadable) as error:
                agree(private, public)
            assert error.value.reason is Reason.MALFORMED
            refused += 1
            continue
        assert agree(private, public) == _hex(case, "shared"), case
        agreed += 1
    assert agreed > 400
    assert refused > 30


def test_ed25519_accepts_and_refuses_as_told() -> None:
    count = 0
    for group, case in _cases("ed25519"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        check_signing_key(public)
        valid = signature_is_valid(public, _hex(case, "msg"), _hex(case, "sig"))
        assert valid == (case["result"] == "valid"), case
        count += 1
    assert count > 100


def test_hkdf_derives_as_told() -> None:
    count = 0
    for _, case in _cases("hkdf_sha256"):
        arguments = (_hex(case, "ikm"), _hex(case, "salt"), _hex(case, "info"), case["size"])
        if case["result"] == "invalid":
            with pytest.raises(ValueError, match="larger than 8160"):
                hkdf_sha256(*arguments)
        else:
            assert hkdf_sha256(*arguments) == _hex(case, "okm"), case
        count += 1
    assert count > 80


def test_hmac_computes_as_told() -> None:
    count = 0
    for group, case in _cases("hmac_sha256"):
        key, message, told = _hex(case, "key"), _hex(case, "msg"), _hex(case, "tag")
        size = group["tagSize"] // 8
        fits = hmac_sha256(key, message)[:size] == told
        assert fits == (case["result"] == "valid"), case
        assert hmac_sha256_pair(key, b"other", message)[1][:size] == hmac_sha256(key, message)[:size]
        count += 1
    assert count > 150


def test_aes_256_gcm_seals_and_opens_as_told() -> None:
    count = 0
    for group, case in _cases("aes_gcm"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 8 * NONCE_BYTES, 128):
            continue
        key, nonce, aad = _hex(case, "key"), _hex(case, "iv"), _hex(case, "aad")
        sealed = _hex(case, "ct") + _hex(case, "tag")
        count += 1
        if case["result"] == "invalid":
            with pytest.raises(Unreadable) as refused:
                aead_open(key, nonce, sealed, aad)
            assert refused.value.reason is Reason.BAD_CIPHERTEXT
            continue
        assert aead_open(key, nonce, sealed, aad) == _hex(case, "msg"), case
        assert aead_seal(key, nonce, _hex(case, "msg"), aad) == sealed, case
    assert count > 50
