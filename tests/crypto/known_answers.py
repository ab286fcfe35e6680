"""Makes the project's own vectors: every derivation, and a transcript of eight messages with a handshake.

`python -m tests.crypto.known_answers` writes tests/vectors/*.json. The tests compare what the core computes
now with what stands there; docs/protocol-crypto.md explains the files. A change of a vector is a change of protocol.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crypto.chains import chain_step, root_step, seal_under
from crypto.content import ContentIds, content_id, pad, padded_length
from crypto.envelope import Expected, check_recipient, open_ratchet, parse_envelope, seal_ratchet, verify_signature
from crypto.files import Attachment, FileKey, FileSealer
from crypto.grants import FIRST_PREVIOUS, entry_mac
from crypto.handshake import Handshake, associated_data, initiate, respond, session_id
from crypto.identity import IdentityKeys, LocalDevice
from crypto.keystore import fingerprint_words
from crypto.prekeys import Bundle, OneTimePrekey, Prekeys, SignedPrekey, make_one_time_prekeys, make_signed_prekey
from crypto.primitives import aead_seal, agree, agreement_public
from crypto.ratchet import Header, encode_header
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.sessions import start_session
from crypto.wraps import seal_direct, seal_group, seal_stream

VECTORS = Path(__file__).parent.parent / "vectors"
DERIVATIONS = VECTORS / "derivations.json"
TRANSCRIPT = VECTORS / "transcript.json"

ALICE, AGENT = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
GROUP = "33333333-0000-4000-8000-000000000000"
CONVERSATION = "0b5f1a52-8a3c-4a3e-9a33-3f1d2f4f9a01"
MESSAGE_ID = "01J00000000000000000000001"
NOW_MS = 1_750_000_000_000


@dataclass
class Recorded:
    """Bytes that look random, the same in every run, and a note of each piece that was taken."""

    seed: str
    taken: list[bytes] = field(default_factory=list)
    count: int = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        piece = hashlib.shake_256(f"{self.seed} {self.count}".encode()).digest(size)
        self.taken.append(piece)
        return piece

    def drain(self) -> list[str]:
        """What was taken since the last time, as hex."""
        taken, self.taken = [piece.hex() for piece in self.taken], []
        return taken


def _hex(**values: bytes | str | int | None) -> dict[str, Any]:
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()}


def derivations() -> dict[str, Any]:
    """Every derivation of PROTOCOL §5 with its inputs and outputs; binary as hex."""
    random = Recorded("derivations")
    alice, agent = IdentityKeys.generate(random), IdentityKeys.generate(random)
    return {
        "identity": _identity(alice, agent),
        "signed_prekey": _signed_prekey(agent, random),
        "x3dh": [_x3dh(alice, agent, random, with_one_time=flag) for flag in (True, False)],
        "ratchet": _ratchet(random),
        "content": _content(random),
        "wraps": _wraps(agent, random),
        "signature": _signature(alice),
        "padded_lengths": [[size, padded_length(size)] for size in _SIZES],
        "file": _file(random),
        "ledger": _ledger(random),
    }


_SIZES = (1, 255, 256, 257, 272, 273, 300, 511, 512, 513, 1000, 4095, 4097, 65_536, 65_537, 100_001)


def _identity(alice: IdentityKeys, agent: IdentityKeys) -> dict[str, Any]:
    agreement, seed = alice.private_halves()
    fingerprint = alice.public.fingerprint(ALICE)
    return _hex(
        owner_id=ALICE,
        x25519_private=agreement,
        x25519_public=alice.public.agreement_key,
        ed25519_seed=seed,
        ed25519_public=alice.public.signing_key,
        fingerprint=fingerprint,
        fingerprint_words=fingerprint_words(fingerprint),
        associated_data_as_initiator=associated_data(alice.public, agent.public),
    )


def _signed_prekey(agent: IdentityKeys, random: Recorded) -> dict[str, Any]:
    made = make_signed_prekey(LocalDevice(AGENT, AGENT, agent), 7, NOW_MS, random)
    return _hex(
        owner_id=AGENT,
        device_id=AGENT,
        identity_key=agent.public.agreement_key,
        ed25519_seed=agent.private_halves()[1],
        id=made.id,
        prekey=made.public,
        signature=made.signature,
    )


def _x3dh(alice: IdentityKeys, agent: IdentityKeys, random: Recorded, *, with_one_time: bool) -> dict[str, Any]:
    device = LocalDevice(AGENT, AGENT, agent)
    signed = make_signed_prekey(device, 7, NOW_MS, random)
    one_time = make_one_time_prekeys(9, 1, random)[0] if with_one_time else None
    bundle = _bundle(device, signed, one_time)
    random.drain()
    secret, ephemeral = initiate(alice, bundle, random)
    (ephemeral_private,) = random.drain()
    handshake = Handshake(
        alice.public.agreement_key, alice.public.signing_key, ephemeral, NOW_MS, 7, bundle.one_time_prekey_id
    )
    assert respond(agent, handshake, signed, one_time) == secret
    return _hex(
        initiator_x25519_private=alice.private_halves()[0],
        responder_x25519_private=agent.private_halves()[0],
        ephemeral_private=ephemeral_private,
        signed_prekey_private=signed.private,
        one_time_prekey_private=None if one_time is None else one_time.private,
        shared_secret=secret,
        started=NOW_MS,
        session=session_id(associated_data(alice.public, agent.public), ephemeral, NOW_MS),
    )


def _ratchet(random: Recorded) -> dict[str, Any]:
    root_key, own_private, their_private = random(32), random(32), random(32)
    shared = agree(own_private, agreement_public(their_private))
    next_root, chain = root_step(root_key, shared)
    message_key, next_chain = chain_step(chain)
    salt, content_key, aad = random(16), random(32), random(64)
    return _hex(
        root_key=root_key,
        own_private=own_private,
        their_public=agreement_public(their_private),
        shared=shared,
        next_root_key=next_root,
        chain_key=chain,
        message_key=message_key,
        next_chain_key=next_chain,
        salt=salt,
        content_key=content_key,
        aad=aad,
        wrapped_key=seal_under(message_key, salt, content_key, aad),
        header=encode_header(Header(agreement_public(own_private), 3, 300)),
        header_previous_chain_length=3,
        header_number=300,
    )


def _content(random: Recorded) -> dict[str, Any]:
    aad = ContentIds("hashee-envelope-v1.2", CONVERSATION, AGENT, ALICE, "phone", MESSAGE_ID).aad
    content_key, nonce, payload = random(32), random(12), b'{"type":"text","text":"hello"}'
    ciphertext = aead_seal(content_key, nonce, pad(payload), aad)
    return _hex(
        ids=json.dumps(["hashee-envelope-v1.2", CONVERSATION, AGENT, ALICE, "phone", MESSAGE_ID]),
        aad=aad,
        payload=payload.decode(),
        content_key=content_key,
        nonce=nonce,
        ciphertext=ciphertext,
        content_id=content_id(aad, nonce, ciphertext),
    )


def _wraps(agent: IdentityKeys, random: Recorded) -> dict[str, Any]:
    content_key, bound_to, key = random(32), random(32), random(32)
    random.drain()
    direct = seal_direct(
        to=AGENT,
        recipient=agent.public.agreement_key,
        content_key=content_key,
        content_id=bound_to,
        random=random,
    )
    (ephemeral_private,) = random.drain()
    group = seal_group(
        group_id=GROUP, key_version=3, group_key=key, content_key=content_key, content_id=bound_to, random=random
    )
    stream = seal_stream(
        stream_id=MESSAGE_ID, seq=5, stream_key=key, content_key=content_key, content_id=bound_to, random=random
    )
    return {
        "content_key": content_key.hex(),
        "content_id": bound_to.hex(),
        "direct": _hex(
            recipient_private=agent.private_halves()[0],
            ephemeral_private=ephemeral_private,
            ephemeral_key=direct.ephemeral_key,
            wrapped_key=direct.wrapped_key,
        ),
        "group": _hex(group_id=GROUP, key_version=3, group_key=key, salt=group.salt, wrapped_key=group.wrapped_key),
        "stream": _hex(stream_id=MESSAGE_ID, seq=5, stream_key=key, salt=stream.salt, wrapped_key=stream.wrapped_key),
    }


def _signature(alice: IdentityKeys) -> dict[str, Any]:
    body = b"\x81\xa1v\xa1x"
    return _hex(
        ed25519_seed=alice.private_halves()[1],
        body=body,
        signature=alice.sign(b"hashee-sign-v1\x00" + body),
    )


def _file(random: Recorded) -> dict[str, Any]:
    key = FileKey.generate(random)
    sealer = FileSealer(key, CONVERSATION, "upload-1")
    assert not list(sealer.feed(b"a small file"))
    sealed = sealer.finish()
    attachment = Attachment("file-1", "upload-1", key, sealer.size, sealer.sha256, "text/plain", "a.txt")
    return {
        "conversation_id": CONVERSATION,
        "content": "a small file",
        "ciphertext": sealed.hex(),
        "attachment": attachment.to_payload(),
    }


def _ledger(random: Recorded) -> dict[str, Any]:
    key, entry = random(32), b"an entry"
    first = entry_mac(key, FIRST_PREVIOUS, entry)
    return _hex(ledger_key=key, entry=entry, first_mac=first, second_mac=entry_mac(key, first, entry))


def _bundle(device: LocalDevice, signed: SignedPrekey, one_time: OneTimePrekey | None) -> Bundle:
    return Bundle(
        device.owner_id,
        device.device_id,
        device.identity.public,
        signed.id,
        signed.public,
        signed.signature,
        None if one_time is None else one_time.id,
        None if one_time is None else one_time.public,
    )


# Who says what, and in which order it arrives: two first messages with handshakes, an answer, a chain each way,
# and the seventh message before the sixth.
_SAID = (
    ("alice", "first, with a handshake"),
    ("alice", "second, with the same handshake"),
    ("agent", "the answer turns the ratchet"),
    ("alice", "ü 😀 beyond ASCII"),
    ("agent", "a new chain"),
    ("alice", "overtaken"),
    ("alice", "overtaking"),
    ("agent", "x" * 300),
)
_ARRIVES = (0, 1, 2, 3, 4, 6, 5, 7)


@dataclass
class _Side:
    device: LocalDevice
    random: Recorded
    prekeys: Prekeys
    record: DeviceRecord = EMPTY_RECORD


def transcript() -> dict[str, Any]:
    """Eight messages between a person's phone and an agent; binary as hex, envelopes as they go on the wire."""
    alice, agent = _side("alice", ALICE, "phone"), _side("agent", AGENT, AGENT)
    signed = make_signed_prekey(agent.device, 7, NOW_MS, agent.random)
    (one_time,) = make_one_time_prekeys(9, 1, agent.random)
    agent.prekeys = Prekeys({7: signed}, {9: one_time})
    keys = {name: _private(side) for name, side in (("alice", alice), ("agent", agent))}
    alice.random.drain()
    alice.record = start_session(
        EMPTY_RECORD, alice.device, _bundle(agent.device, signed, one_time), epoch=0, now_ms=NOW_MS, random=alice.random
    )
    start = {
        "bundle": _hex(
            owner_id=AGENT,
            device_id=AGENT,
            signed_prekey_id=7,
            signed_prekey_private=signed.private,
            signed_prekey=signed.public,
            signature=signed.signature,
            one_time_prekey_id=9,
            one_time_prekey_private=one_time.private,
            one_time_prekey=one_time.public,
        ),
        "random": alice.random.drain(),
        "started": NOW_MS,
        "conversation_id": CONVERSATION,
    }
    messages = _talk(alice, agent)
    return {"keys": keys, "start": start, "messages": messages, "arrives": list(_ARRIVES)}


def _side(name: str, owner_id: str, device_id: str) -> _Side:
    random = Recorded(f"transcript {name}")
    side = _Side(LocalDevice(owner_id, device_id, IdentityKeys.generate(random)), random, Prekeys())
    random.drain()
    return side


def _private(side: _Side) -> dict[str, Any]:
    agreement, seed = side.device.identity.private_halves()
    return _hex(
        owner_id=side.device.owner_id,
        device_id=side.device.device_id,
        x25519_private=agreement,
        ed25519_seed=seed,
    )


def _talk(alice: _Side, agent: _Side) -> list[dict[str, Any]]:
    """Each message is sealed when everything before it in the order of arrival has been opened."""
    sides = {"alice": alice, "agent": agent}
    agent.random.drain()
    messages: list[dict[str, Any]] = []
    for number, (name, words) in enumerate(_SAID):
        sender = sides[name]
        receiver = agent if sender is alice else alice
        messages.append(_say(sender, receiver, number, words) | {"from": name})
        if number == 5:
            continue
        for arriving in (6, 5) if number == 6 else (number,):
            _hear(sender, receiver, messages[arriving]["encrypted_payload"])
    return messages


def _say(sender: _Side, receiver: _Side, number: int, words: str) -> dict[str, Any]:
    payload: dict[str, object] = {"type": "text", "text": words}
    message_id = f"01J000000000000000000000{number:02d}"
    sealed = seal_ratchet(
        sender.device,
        to=receiver.device.owner_id,
        conversation_id=CONVERSATION,
        client_message_id=message_id,
        payload=payload,
        records={receiver.device.device_id: sender.record},
        epoch=0,
        now_ms=NOW_MS,
        random=sender.random,
    )
    sender.record = sealed.records[receiver.device.device_id]
    envelope = parse_envelope(sealed.encrypted_payload, Expected(CONVERSATION, sender.device.owner_id))
    return {
        "client_message_id": message_id,
        "random": sender.random.drain(),
        "payload": payload,
        "encrypted_payload": sealed.encrypted_payload,
        "content_id": envelope.content_id.hex(),
        "replay_id": envelope.replay_id.hex(),
    }


def _hear(sender: _Side, receiver: _Side, encrypted_payload: str) -> None:
    envelope = parse_envelope(encrypted_payload, Expected(CONVERSATION, sender.device.owner_id))
    check_recipient(envelope, receiver.device.owner_id)
    verify_signature(envelope, sender.device.identity.public)
    opened = open_ratchet(
        envelope,
        receiver.device,
        sender.device.identity.public,
        receiver.record,
        receiver.prekeys,
        epoch=0,
        now_ms=NOW_MS,
    )
    receiver.record = opened.record


def main() -> None:
    """Write both files."""
    for path, made in ((DERIVATIONS, derivations()), (TRANSCRIPT, transcript())):
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
