"""Our ratchet against PyPI's `DoubleRatchet`, which nobody here wrote, over random schedules.

The peer is configured with our derivations and our AEAD. Both ends are in turn ours and theirs; messages are
lost, reordered, duplicated and forged; both sides must agree on every byte and on every refusal.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
import pytest
from doubleratchet import (
    AEAD,
    KDF,
    AuthenticationFailedException,
    DoubleRatchet,
    DuplicateMessageException,
    EncryptedMessage,
)
from doubleratchet import Header as TheirHeader
from doubleratchet.recommended.diffie_hellman_ratchet_curve25519 import DiffieHellmanRatchet

from crypto.chains import open_under, seal_under
from crypto.errors import Reason, Unreadable
from crypto.handshake import associated_data
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import Prekeys
from crypto.primitives import KEY_BYTES, agreement_public, hkdf_sha256, hmac_sha256
from crypto.ratchet import Header, decode_header, encode_header, initiator_ratchet, responder_ratchet
from crypto.records import DeviceRecord, Session
from crypto.sessions import unwrap_key, wrap_key
from crypto.wraps import RatchetWrap
from tests.crypto.builders import NOW_MS, stream

pytestmark = pytest.mark.pure

SESSION = bytes(range(16))
INITIATOR = LocalDevice("i", "i", IdentityKeys.generate(stream(1)))
RESPONDER = LocalDevice("r", "r", IdentityKeys.generate(stream(2)))
AD = associated_data(INITIATOR.identity.public, RESPONDER.identity.public)
SHARED_SECRET = stream(3)(32)
PREKEY_PRIVATE = stream(4)(32)
PREKEY = agreement_public(PREKEY_PRIVATE)

T = TypeVar("T")


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The library is written async but never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the library waited for something")


class Refused(Exception):
    """Either end's refusal."""


@dataclass(frozen=True)
class Message:
    header: bytes
    salt: bytes
    sealed: bytes


class End(Protocol):
    def send(self, content: bytes) -> Message: ...

    def receive(self, message: Message) -> bytes: ...


class Ours:
    """One end: a record with one session whose handshake both ends have somehow agreed on."""

    def __init__(self, device: LocalDevice, other: LocalDevice, seed: int) -> None:
        is_initiator = device is INITIATOR
        ratchet = (
            initiator_ratchet(SHARED_SECRET, PREKEY)
            if is_initiator
            else responder_ratchet(SHARED_SECRET, PREKEY_PRIVATE, PREKEY)
        )
        handshake_key = bytes(KEY_BYTES) if is_initiator else None
        session = Session(SESSION, NOW_MS, 0, is_initiator, ratchet, 1, handshake_key=handshake_key)
        self.device, self.other = device, other
        self.record = DeviceRecord(other.identity.public, (session,))
        self.random = stream(1_000 + seed)

    def send(self, content: bytes) -> Message:
        self.record, wrap = wrap_key(
            self.record, self.device, "x", content, b"", epoch=0, now_ms=NOW_MS, random=self.random
        )
        self.record = DeviceRecord.decode(self.record.encode())
        return Message(wrap.header, wrap.salt, wrap.wrapped_key)

    def receive(self, message: Message) -> bytes:
        wrap = RatchetWrap("x", SESSION, message.header, message.salt, message.sealed)
        pinned = self.other.identity.public
        before = self.record.encode()
        try:
            opened = unwrap_key(self.record, self.device, pinned, wrap, b"", Prekeys(), epoch=0, now_ms=NOW_MS)
        except Unreadable as error:
            unchanged = self.record.encode() == before
            if unchanged and error.reason in (Reason.KEY_USED, Reason.BAD_CIPHERTEXT):
                raise Refused from None
            raise
        self.record = DeviceRecord.decode(opened.record.encode())
        return opened.content_key


class _RootKdf(KDF):
    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        return hkdf_sha256(data, key, b"hashee-ratchet-root-v1", length)


class _ChainKdf(KDF):
    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        assert (data, length) == (b"", 64)
        return hmac_sha256(key, b"\x02") + hmac_sha256(key, b"\x01")


class _Aead(AEAD):
    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        salt = random.randbytes(16)
        return salt + seal_under(key, salt, plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        try:
            return open_under(key, ciphertext[:16], ciphertext[16:], associated_data)
        except Unreadable:
            raise AuthenticationFailedException from None


class _Theirs(DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: TheirHeader) -> bytes:
        return associated_data + encode_header(Header(*header))


SETTINGS: dict[str, Any] = {
    "diffie_hellman_ratchet_class": DiffieHellmanRatchet,
    "root_chain_kdf": _RootKdf,
    "message_chain_kdf": _ChainKdf,
    "message_chain_constant": b"",
    "dos_protection_threshold": 1_000,
    "max_num_skipped_message_keys": 2_000,
    "aead": _Aead,
    "shared_secret": SHARED_SECRET,
    "associated_data": AD,
}


class Theirs:
    """One end by the library; a responder begins with the first message that it can open."""

    def __init__(self, *, is_initiator: bool) -> None:
        self.is_initiator = is_initiator
        self.ratchet: _Theirs | None = None

    def send(self, content: bytes) -> Message:
        if self.ratchet is None:
            self.ratchet, sealed = _finish(
                _Theirs.encrypt_initial_message(recipient_ratchet_pub=PREKEY, message=content, **SETTINGS)
            )
        else:
            sealed = _finish(self.ratchet.encrypt_message(content, AD))
        header = encode_header(Header(*sealed.header))
        return Message(header, sealed.ciphertext[:16], sealed.ciphertext[16:])

    def receive(self, message: Message) -> bytes:
        header = TheirHeader(*msgspec.structs.astuple(decode_header(message.header)))
        sealed = EncryptedMessage(header, message.salt + message.sealed)
        try:
            if self.ratchet is None:
                self.ratchet, content = _finish(
                    _Theirs.decrypt_initial_message(own_ratchet_priv=PREKEY_PRIVATE, message=sealed, **SETTINGS)
                )
                return content
            return _finish(self.ratchet.decrypt_message(sealed, AD))
        except (AuthenticationFailedException, DuplicateMessageException):
            raise Refused from None


def _play(initiator: End, responder: End, seed: int, steps: int = 120) -> int:
    """A random schedule; the number of messages that were opened."""
    chance = random.Random(seed)
    ends = {0: initiator, 1: responder}
    under_way: dict[int, list[tuple[Message, bytes]]] = {0: [], 1: []}
    opened: dict[int, list[Message]] = {0: [], 1: []}
    heard = [True, False]
    for number in range(steps):
        side = chance.randrange(2)
        action = chance.random()
        if action < 0.45 and heard[side]:
            content = b"message %d" % number
            under_way[1 - side].append((ends[side].send(content), content))
        elif action < 0.85 and under_way[side]:
            late = chance.random() < 0.4
            place = chance.randrange(len(under_way[side])) if late else 0
            message, content = under_way[side].pop(place)
            if chance.random() < 0.1:
                continue  # lost
            if heard[side] and chance.random() < 0.2:
                forged = Message(message.header, message.salt, message.sealed[:-1] + b"\x00")
                if forged != message:
                    with pytest.raises(Refused):
                        ends[side].receive(forged)
            assert ends[side].receive(message) == content
            heard[side] = True
            opened[side].append(message)
        elif opened[side]:
            with pytest.raises(Refused):
                ends[side].receive(chance.choice(opened[side]))
    return len(opened[0]) + len(opened[1])


@pytest.mark.parametrize("seed", range(25))
def test_ours_begins_and_theirs_answers(seed: int) -> None:
    assert _play(Ours(INITIATOR, RESPONDER, seed), Theirs(is_initiator=False), seed) > 10


@pytest.mark.parametrize("seed", range(25))
def test_theirs_begins_and_ours_answers(seed: int) -> None:
    assert _play(Theirs(is_initiator=True), Ours(RESPONDER, INITIATOR, seed), seed) > 10


@pytest.mark.parametrize("seed", range(10))
def test_ours_at_both_ends_over_the_same_schedules(seed: int) -> None:
    ours = Ours(INITIATOR, RESPONDER, seed), Ours(RESPONDER, INITIATOR, seed + 100)
    assert _play(*ours, seed, steps=300) > 30
