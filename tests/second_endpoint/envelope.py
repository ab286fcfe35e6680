"""Envelope, signature, content and the wraps that need no session (crypto §3, §4, §5)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.second_endpoint.encoding import (
    Random,
    bytes_of,
    from_base64,
    id_of,
    integer_of,
    pack,
    text_of,
    to_base64,
    unpack,
)
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import Identity, Pair, agree, checked_x25519, hkdf, public_of, seal, sha256, unseal

V1, V1_1, V1_2 = "hashee-envelope-v1", "hashee-envelope-v1.1", "hashee-envelope-v1.2"
KINDS = {V1: {"direct"}, V1_1: {"group", "stream"}, V1_2: {"ratchet", "stream"}}
MOST_CHARACTERS = 1_048_576
MOST_WRAPS = 1_024

Wrap = dict[str, object]
Payload = dict[str, object]


@dataclass(frozen=True)
class Ids:
    """The texts of a body, in its order."""

    v: str
    conversation_id: str
    to: str
    sender_id: str
    sender_device: str
    client_message_id: str

    @property
    def aad(self) -> bytes:
        """What the content's tag covers besides."""
        return pack(list(vars(self).values()))

    @property
    def replay_id(self) -> bytes:
        """By which a repeat is known."""
        named = [self.conversation_id, self.sender_id, self.sender_device, self.client_message_id]
        return sha256(b"hashee-replay-v1\0" + pack(named))[:8]


@dataclass(frozen=True)
class Content:
    """A sealed payload and its key."""

    key: bytes
    nonce: bytes
    ciphertext: bytes
    content_id: bytes


@dataclass(frozen=True)
class Envelope:
    """One that was read; nothing of it is verified."""

    ids: Ids
    nonce: bytes
    ciphertext: bytes
    wraps: tuple[Wrap, ...]
    body: bytes
    signature: bytes

    @property
    def content_id(self) -> bytes:
        """To which the wraps are bound."""
        return sha256(self.ids.aad + self.nonce + self.ciphertext)

    def check_signature(self, pinned: Pair) -> None:
        """Raises Unreadable `bad_signature`."""
        pinned.check_signature(b"hashee-sign-v1\0" + self.body, self.signature)

    def payload(self, content_key: bytes) -> Payload:
        """Raises Unreadable `bad_ciphertext`, `bad_padding`, `bad_payload`."""
        return read_payload(unseal(content_key + self.nonce, self.ciphertext, self.ids.aad))


def padded(length: int) -> int:
    """crypto §4."""
    if length <= 256:
        return 256
    exponent = length.bit_length() - 1  # the floor of the logarithm, without its rounding
    step = 1 << (exponent - (exponent.bit_length() - 1) - 1)
    return -(-length // step) * step


def read_payload(plaintext: bytes) -> Payload:
    """The JSON in an opened content. Raises Unreadable `bad_padding`, `bad_payload`."""
    stripped = plaintext.rstrip(b"\0")
    if stripped[-1:] != b"\x80":
        raise Unreadable("bad_padding")
    try:
        payload = json.loads(stripped[:-1].decode())
    except (ValueError, RecursionError):
        raise Unreadable("bad_payload") from None
    if not isinstance(payload, dict):
        raise Unreadable("bad_payload")
    return payload


def seal_content(ids: Ids, payload: Mapping[str, object], random: Random) -> Content:
    """The payload under a fresh content key and nonce."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    plaintext = (text + b"\x80").ljust(padded(len(text) + 1), b"\0")
    drawn = random(44)
    ciphertext = seal(drawn, plaintext, ids.aad)
    return Content(drawn[:32], drawn[32:], ciphertext, sha256(ids.aad + drawn[32:] + ciphertext))


def close_envelope(ids: Ids, content: Content, wraps: Sequence[Wrap], identity: Identity) -> str:
    """Body and signature as they go into `encrypted_payload`."""
    body = pack(vars(ids) | {"nonce": content.nonce, "ciphertext": content.ciphertext, "wraps": list(wraps)})
    return to_base64(pack([body, identity.sign(b"hashee-sign-v1\0" + body)]))


def read_envelope(encrypted_payload: str) -> Envelope:
    """The first three checks of crypto §3.1. Raises Unreadable `malformed`, `unsupported_version`."""
    if len(encrypted_payload) > MOST_CHARACTERS:
        raise Unreadable("malformed", "size")
    outer = unpack(from_base64(encrypted_payload))
    if not isinstance(outer, list) or len(outer) != 2:
        raise Unreadable("malformed", "not body and signature")
    parts = {"body": outer[0], "signature": outer[1]}
    body, signature = bytes_of(parts, "body"), bytes_of(parts, "signature", 64)
    fields = unpack(body)
    if not isinstance(fields, dict):
        raise Unreadable("malformed", "body")
    v, wraps = text_of(fields, "v"), fields.get("wraps")
    if v not in KINDS:
        raise Unreadable("unsupported_version")
    if not isinstance(wraps, list) or len(wraps) > MOST_WRAPS:
        raise Unreadable("malformed", "wraps")
    ids = Ids(v, *(id_of(fields, name) for name in list(Ids.__annotations__)[1:]))
    for wrap in wraps:
        if not isinstance(wrap, dict) or wrap.get("kind") not in KINDS[v]:
            raise Unreadable("malformed", "wrap")
    return Envelope(ids, bytes_of(fields, "nonce", 12), bytes_of(fields, "ciphertext"), tuple(wraps), body, signature)


def the_wrap(envelope: Envelope, kind: str, name: str, receiver: str, missing: str) -> Wrap:
    """The one wrap of this kind for this receiver. Raises Unreadable `malformed` (two) or as `missing` says."""
    ours = [wrap for wrap in envelope.wraps if wrap["kind"] == kind and wrap.get(name) == receiver]
    if len(ours) > 1:
        raise Unreadable("malformed", "two wraps for one receiver")
    if not ours:
        raise Unreadable(missing, "no wrap for us")
    return ours[0]


def direct_wrap(to: str, recipient: bytes, content: Content, random: Random) -> Wrap:
    """For one X25519 identity key."""
    ephemeral = random(32)
    public = public_of(ephemeral)
    derived = hkdf(agree(ephemeral, recipient), public + recipient, b"hashee-wrap-v1", 44)
    sealed = seal(derived, content.key, content.content_id)
    return {"kind": "direct", "to": to, "ephemeral_key": public, "wrapped_key": sealed}


def open_direct(wrap: Wrap, identity: Identity, content_id: bytes) -> bytes:
    """The content key. Raises Unreadable."""
    public = checked_x25519(bytes_of(wrap, "ephemeral_key", 32))
    derived = hkdf(agree(identity.private, public), public + identity.pair.x25519, b"hashee-wrap-v1", 44)
    return unseal(derived, bytes_of(wrap, "wrapped_key", 48), content_id)


def _numbered(key: bytes, salt: bytes, label: bytes, name: str, number: int) -> bytes:
    return hkdf(key, salt, label + name.encode() + number.to_bytes(4, "big"), 44)


def group_wrap(group_id: str, version: int, group_key: bytes, content: Content, random: Random) -> Wrap:
    """For everyone with this version of the group's key."""
    salt = random(16)
    sealed = seal(
        _numbered(group_key, salt, b"hashee-group-wrap-v1", group_id, version), content.key, content.content_id
    )
    return {"kind": "group", "group_id": group_id, "key_version": version, "salt": salt, "wrapped_key": sealed}


def open_group(wrap: Wrap, group_key: bytes, content_id: bytes) -> bytes:
    """The content key. Raises Unreadable."""
    named = text_of(wrap, "group_id"), integer_of(wrap, "key_version")
    derived = _numbered(group_key, bytes_of(wrap, "salt", 16), b"hashee-group-wrap-v1", *named)
    return unseal(derived, bytes_of(wrap, "wrapped_key", 48), content_id)


def stream_wrap(stream_id: str, seq: int, stream_key: bytes, content: Content, random: Random) -> Wrap:
    """For whoever got the stream's key."""
    salt = random(16)
    sealed = seal(
        _numbered(stream_key, salt, b"hashee-stream-wrap-v1", stream_id, seq), content.key, content.content_id
    )
    return {"kind": "stream", "stream_id": stream_id, "seq": seq, "salt": salt, "wrapped_key": sealed}


def open_stream(wrap: Wrap, stream_key: bytes, content_id: bytes) -> bytes:
    """The content key. Raises Unreadable."""
    named = text_of(wrap, "stream_id"), integer_of(wrap, "seq")
    derived = _numbered(stream_key, bytes_of(wrap, "salt", 16), b"hashee-stream-wrap-v1", *named)
    return unseal(derived, bytes_of(wrap, "wrapped_key", 48), content_id)
