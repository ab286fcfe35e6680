"""A second implementation, written from docs/protocol.md alone, seals and opens the kept transcript.

It imports nothing of crypto/, keeps its state in plain dictionaries and checks nothing that an enemy could do:
it is what somebody else's first afternoon with the page and the vectors would look like.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import nacl.bindings as sodium
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

pytestmark = pytest.mark.pure

KEPT = json.loads((Path(__file__).parent.parent / "vectors" / "transcript.json").read_text(encoding="utf-8"))
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
multiply, base = sodium.crypto_scalarmult, sodium.crypto_scalarmult_base


def _hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    key = hmac.digest(salt, ikm, "sha256")
    first = hmac.digest(key, info + b"\x01", "sha256")
    return (first + hmac.digest(key, first + info + b"\x02", "sha256"))[:length]


def _aead(derived: bytes) -> tuple[AESGCM, bytes]:
    return AESGCM(derived[:32]), derived[32:]


class Side:
    """One owner's device in one session."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.owner, self.device = keys["owner_id"], keys["device_id"]
        self.identity = bytes.fromhex(keys["x25519_private"])
        self.verify_key, self.sign_key = sodium.crypto_sign_seed_keypair(bytes.fromhex(keys["ed25519_seed"]))
        self.pair = base(self.identity) + self.verify_key
        self.handshake: dict[str, Any] | None = None
        self.root = self.ad = self.session = b""
        self.own: bytes | None = None
        self.theirs: bytes | None = None
        self.sending: bytes | None = None
        self.sent = self.previous = 0
        self.receiving: dict[bytes, tuple[bytes, int]] = {}
        self.skipped: dict[tuple[bytes, int], bytes] = {}

    def root_step(self, own: bytes, theirs: bytes) -> bytes:
        both = _hkdf(multiply(own, theirs), self.root, b"hashee-ratchet-root-v1", 64)
        self.root = both[:32]
        return both[32:]

    def seal(self, other: Side, message: dict[str, Any], conversation_id: str) -> str:
        random = [bytes.fromhex(piece) for piece in message["random"]]
        content_key, nonce = random[0][:32], random[0][32:]
        ids = ["hashee-envelope-v1.2", conversation_id, other.owner, self.owner, self.device]
        ids.append(message["client_message_id"])
        payload = json.dumps(message["payload"], ensure_ascii=False, separators=(",", ":")).encode()
        length, padded = len(payload) + 1, 256
        if length > 256:
            exponent = length.bit_length() - 1
            zeros = exponent - (exponent.bit_length() - 1) - 1
            padded = -(-length // 2**zeros) * 2**zeros
        plaintext = (payload + b"\x80").ljust(padded, b"\0")
        aad = pack(ids)
        ciphertext = AESGCM(content_key).encrypt(nonce, plaintext, aad)
        content_id = hashlib.sha256(aad + nonce + ciphertext).digest()
        if self.sending is None:
            assert self.theirs is not None
            self.own = random[1]
            self.previous, self.sent = self.sent, 0
            self.sending = self.root_step(self.own, self.theirs)
        assert self.own is not None
        header = pack([base(self.own), self.previous, self.sent])
        message_key = hmac.digest(self.sending, b"\x01", "sha256")
        self.sending, self.sent = hmac.digest(self.sending, b"\x02", "sha256"), self.sent + 1
        cipher, wrap_nonce = _aead(_hkdf(message_key, random[-1], b"hashee-ratchet-message-v1", 44))
        wrap: dict[str, Any] = {
            "kind": "ratchet",
            "to": other.device,
            "session": self.session,
            "header": header,
            "salt": random[-1],
            "wrapped_key": cipher.encrypt(wrap_nonce, content_key, self.ad + header + content_id),
        }
        if self.handshake is not None:
            wrap["handshake"] = self.handshake
        names = ("v", "conversation_id", "to", "sender_id", "sender_device", "client_message_id")
        fields = dict(zip(names, ids, strict=True))
        body = pack(fields | {"nonce": nonce, "ciphertext": ciphertext, "wraps": [wrap]})
        signature = sodium.crypto_sign(b"hashee-sign-v1\0" + body, self.sign_key)[:64]
        return base64.b64encode(pack([body, signature])).decode()

    def open(self, other: Side, encrypted_payload: str) -> Any:
        body, signature = unpack(base64.b64decode(encrypted_payload))
        sodium.crypto_sign_open(signature + b"hashee-sign-v1\0" + body, other.verify_key)
        said = unpack(body)
        (wrap,) = said["wraps"]
        if "handshake" in wrap and not self.session:
            self.answer(other, wrap)
        names = ("v", "conversation_id", "to", "sender_id", "sender_device", "client_message_id")
        aad = pack([said[name] for name in names])
        content_id = hashlib.sha256(aad + said["nonce"] + said["ciphertext"]).digest()
        message_key = self.message_key(*unpack(wrap["header"]))
        cipher, nonce = _aead(_hkdf(message_key, wrap["salt"], b"hashee-ratchet-message-v1", 44))
        content_key = cipher.decrypt(nonce, wrap["wrapped_key"], self.ad + wrap["header"] + content_id)
        plaintext = AESGCM(content_key).decrypt(said["nonce"], said["ciphertext"], aad)
        self.handshake = None
        return json.loads(plaintext.rstrip(b"\0")[:-1])

    def message_key(self, theirs: bytes, previous: int, number: int) -> bytes:
        if (theirs, number) in self.skipped:
            return self.skipped.pop((theirs, number))
        if theirs != self.theirs:
            if self.theirs in self.receiving:
                self.skip(self.theirs, previous)
            assert self.own is not None
            self.receiving[theirs] = self.root_step(self.own, theirs), 0
            self.theirs, self.sending = theirs, None
        self.skip(theirs, number + 1)
        return self.skipped.pop((theirs, number))

    def skip(self, theirs: bytes, until: int) -> None:
        chain, count = self.receiving[theirs]
        while count < until:
            self.skipped[theirs, count] = hmac.digest(chain, b"\x01", "sha256")
            chain, count = hmac.digest(chain, b"\x02", "sha256"), count + 1
        self.receiving[theirs] = chain, count

    def ask(self, other: Side, start: dict[str, Any]) -> None:
        bundle, ephemeral = start["bundle"], bytes.fromhex(start["random"][0])
        signed, one_time = bytes.fromhex(bundle["signed_prekey"]), bytes.fromhex(bundle["one_time_prekey"])
        named = [bundle["owner_id"], bundle["device_id"], other.pair[:32], bundle["signed_prekey_id"], signed]
        signature = bytes.fromhex(bundle["signature"])
        sodium.crypto_sign_open(signature + b"hashee-spk-v1\0" + pack(named), other.verify_key)
        self.begin(
            self.pair + other.pair,
            base(ephemeral),
            start["started"],
            multiply(self.identity, signed)
            + multiply(ephemeral, other.pair[:32])
            + multiply(ephemeral, signed)
            + multiply(ephemeral, one_time),
        )
        self.theirs = signed
        self.handshake = {
            "identity_key": self.pair[:32],
            "signing_key": self.pair[32:],
            "ephemeral_key": base(ephemeral),
            "started": start["started"],
            "signed_prekey_id": bundle["signed_prekey_id"],
            "one_time_prekey_id": bundle["one_time_prekey_id"],
        }

    def answer(self, other: Side, wrap: dict[str, Any]) -> None:
        told, bundle = wrap["handshake"], KEPT["start"]["bundle"]
        signed = bytes.fromhex(bundle["signed_prekey_private"])
        one_time = bytes.fromhex(bundle["one_time_prekey_private"])
        self.begin(
            other.pair + self.pair,
            told["ephemeral_key"],
            told["started"],
            multiply(signed, told["identity_key"])
            + multiply(self.identity, told["ephemeral_key"])
            + multiply(signed, told["ephemeral_key"])
            + multiply(one_time, told["ephemeral_key"]),
        )
        assert self.session == wrap["session"]
        self.own = signed

    def begin(self, ad: bytes, ephemeral: bytes, started: int, agreements: bytes) -> None:
        self.ad = ad
        self.root = _hkdf(b"\xff" * 32 + agreements, bytes(32), b"hashee-x3dh-v1", 32)
        hashed = b"hashee-session-v1\0" + ad + ephemeral + started.to_bytes(8, "big")
        self.session = hashlib.sha256(hashed).digest()[:16]


def test_it_seals_and_opens_all_eight_messages() -> None:
    sides = {name: Side(keys) for name, keys in KEPT["keys"].items()}
    alice, agent = sides["alice"], sides["agent"]
    alice.ask(agent, KEPT["start"])
    conversation_id = KEPT["start"]["conversation_id"]
    waiting = list(KEPT["arrives"])
    for number, message in enumerate(KEPT["messages"]):
        sender = sides[message["from"]]
        receiver = agent if sender is alice else alice
        assert sender.seal(receiver, message, conversation_id) == message["encrypted_payload"], number
        while waiting and waiting[0] <= number:
            arriving = KEPT["messages"][waiting.pop(0)]
            assert receiver.open(sender, arriving["encrypted_payload"]) == arriving["payload"]
    assert not waiting
    assert not alice.skipped
    assert not agent.skipped
