"""Every decoder of what comes from outside, as a function of bytes, with genuine samples to start from.

Any bytes give a value or an `Unreadable` with a reason of PROTOCOL §5.10 (a `KeystoreError` for keystores, `NewerFormat` for stored forms):
never another exception, never more than 4 MiB or 20 ms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crypto import msgpack, strict_base64
from crypto.content import decode_payload, encode_payload, pad, read_plaintext
from crypto.envelope import Expected, parse_envelope
from crypto.errors import NewerFormat, Reason, Unreadable
from crypto.files import Attachment
from crypto.grants import Change, Grant, LedgerEntry, relation_changed
from crypto.groups import GroupKey, GroupKeys, read_group_key_envelope
from crypto.keystore import Keystore, KeystoreError, decode_keystore, encode_keystore
from crypto.prekeys import OneTimePrekey, SignedPrekey, bundle_from_json, prekeys_to_json
from crypto.ratchet import decode_header
from crypto.records import DeviceRecord
from tests.crypto.builders import CONVERSATION, NOW_MS, Peer, make_peer, only_wrap, talking_pair

MAX_SECONDS = 0.020
MAX_MEMORY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """One decoder, genuine inputs of it, how they are put on, and the largest that reaches it."""

    decode: Callable[[Any], object]
    samples: tuple[bytes, ...]
    prepare: Callable[[bytes], object] = bytes
    max_bytes: int = 786_432


def run(target: Target, data: bytes) -> Reason | None:
    """The reason for a refusal, None for a value; any other exception goes through to the caller."""
    return run_prepared(target, target.prepare(data[: target.max_bytes]))


def run_prepared(target: Target, prepared: object) -> Reason | None:
    """As `run`, for what `prepare` has made."""
    try:
        target.decode(prepared)
    except Unreadable as error:
        return error.reason
    except (KeystoreError, NewerFormat):
        return Reason.MALFORMED
    return None


def targets() -> Mapping[str, Target]:
    """All decoders by name."""
    alice, agent = talking_pair()
    fresh = make_peer(5)
    first = make_peer(4).seal(fresh, "with a handshake")
    later = alice.seal(agent, "without one")
    skipping = [alice.seal(agent, str(number)) for number in range(9)][8]
    agent.open(alice, skipping)
    wrap = only_wrap(alice, later)
    record = agent.record(alice)
    grant = relation_changed(None, "owner", Change.ESTABLISHED, now_ms=NOW_MS, scopes=["a"])
    group = GroupKeys("group", (GroupKey("group", 1, bytes(32), ("owner",)),))
    entry = prekeys_to_json(alice.device, alice.signed[1], [])
    envelopes = tuple(strict_base64.decode(one) for one in (first, later))
    bodies = tuple(_body(raw) for raw in envelopes)
    return {
        "envelope": Target(_envelope, envelopes, strict_base64.encode),
        "envelope_text": Target(_envelope, (first.encode(), later.encode()), _latin, 1_100_000),
        "body": Target(_envelope, bodies, _signed),
        "opened_body": Target(*_opening(alice, agent, bodies[1:])),
        "opened_first_body": Target(*_opening(make_peer(4), fresh, bodies[:1])),
        "group_key_envelope": Target(_group_key_envelope, envelopes, strict_base64.encode),
        "msgpack": Target(msgpack.decode, bodies),
        "header": Target(decode_header, (wrap.header,)),
        "payload": Target(decode_payload, _PAYLOADS),
        "plaintext": Target(read_plaintext, tuple(pad(one) for one in _PAYLOADS)),
        "record": Target(DeviceRecord.decode, (record.encode(),)),
        "signed_prekey": Target(SignedPrekey.decode, (alice.signed[1].encode(),)),
        "one_time_prekey": Target(OneTimePrekey.decode, (alice.one_time[2].encode(),)),
        "grant": Target(Grant.decode, (grant.grant.encode(),)),
        "ledger_entry": Target(LedgerEntry.decode, (grant.encode(),)),
        "group_keys": Target(GroupKeys.decode, (group.encode(),)),
        "bundle": Target(_bundle, (json.dumps(entry).encode(),), _json),
        "attachment": Target(_attachment, (json.dumps(_ATTACHMENT).encode(),), _json),
        "keystore": Target(decode_keystore, (encode_keystore(Keystore("a", alice.device.identity)),)),
    }


_PAYLOADS = (
    encode_payload({"type": "text", "text": 'a "quoted" \\ ü 😀 \x07', "mentions": ["x", "y"]}),
    encode_payload({"type": "artifact", "artifact": {"a": [1, 2.5, None, True, {"b": {"c": []}}]}}),
)
_ATTACHMENT: dict[str, object] = {
    "attachment_id": "a",
    "file_id": "f",
    "key": strict_base64.encode(bytes(32)),
    "nonce_prefix": strict_base64.encode(bytes(7)),
    "size": 1,
    "sha256": "0" * 64,
    "mime": "text/plain",
    "filename": "a.txt",
}
_EXPECTED = Expected(CONVERSATION, make_peer(1).device.owner_id)


def _body(raw: bytes) -> bytes:
    parts = msgpack.decode(raw)
    assert isinstance(parts, list)
    body = parts[0]
    assert isinstance(body, bytes)
    return body


def _envelope(text: str) -> object:
    return parse_envelope(text, _EXPECTED, allow_v1=True)


def _opening(
    sender: Peer, receiver: Peer, samples: tuple[bytes, ...]
) -> tuple[Callable[[str], object], tuple[bytes, ...], Callable[[bytes], str]]:
    """What a bad peer can reach: a body of its own making, properly signed, up to the opened payload."""

    def signed(body: bytes) -> str:
        signature = sender.device.identity.sign(b"hashee-sign-v1\x00" + body)
        return strict_base64.encode(msgpack.encode([body, signature]))

    return lambda text: receiver.try_open(sender, text), samples, signed


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _signed(data: bytes) -> str:
    return strict_base64.encode(msgpack.encode([data, bytes(64)]))


def _group_key_envelope(text: str) -> object:
    return read_group_key_envelope(text, "group")


def _json(data: bytes) -> dict[str, object]:
    """The shell's JSON reader stands before these two; what it refuses does not reach them."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _bundle(entry: dict[str, object]) -> object:
    return bundle_from_json(entry, "owner")


def _attachment(entry: dict[str, object]) -> object:
    return Attachment.from_payload(entry)
