"""Streams (PROTOCOL §5.8): one key in `stream.start`, then deltas that cost no ratchet number.

A delta is an envelope of its own with one stream wrap, signed like any other. It counts only in a frame with
the same stream_id and seq, from the stream's own sender, in order, once each; everything else is `bad_payload`.
The key lives in memory only and ends with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from crypto import strict_base64
from crypto.content import ContentIds, content_id, open_content, read_plaintext, seal_content
from crypto.envelope import V1_1, V1_2, Envelope, sign_envelope
from crypto.errors import Reason, Unreadable, malformed
from crypto.identity import LocalDevice
from crypto.msgpack import MAX_ID_BYTES, MAX_INTEGER
from crypto.primitives import KEY_BYTES, Random
from crypto.wraps import StreamWrap, open_stream, seal_stream


@dataclass(frozen=True, slots=True)
class StreamKey:
    """The 32 bytes that a stream's deltas are sealed under. The repr shows nothing."""

    value: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> StreamKey:
        """A fresh key, for one stream."""
        return cls(random(KEY_BYTES))


def stream_start_payload(stream_id: str, key: StreamKey) -> dict[str, object]:
    """The payload of the `stream.start` envelope. It holds the key: it goes nowhere but into that envelope."""
    return {"type": "stream", "stream_id": stream_id, "key": strict_base64.encode(key.value)}


def seal_delta(
    device: LocalDevice,
    key: StreamKey,
    *,
    v: str = V1_2,
    to: str,
    conversation_id: str,
    client_message_id: str,
    stream_id: str,
    seq: int,
    text: str,
    random: Random,
) -> str:
    """The `encrypted_payload` of one delta; `text` is appended to what went before. `v` is v1.2 or v1.1."""
    if v not in (V1_1, V1_2):
        raise ValueError("stream wraps go with v1.1 and v1.2")
    if not 0 <= seq <= MAX_INTEGER:
        raise ValueError("seq out of range")
    ids = ContentIds(v, conversation_id, to, device.owner_id, device.device_id, client_message_id)
    content = seal_content(ids, {"type": "delta", "text": text}, random)
    wrap = seal_stream(
        stream_id=stream_id,
        seq=seq,
        stream_key=key.value,
        content_key=content.content_key,
        content_id=content.content_id,
        random=random,
    )
    return sign_envelope(device, ids, content, [wrap])


def open_delta(envelope: Envelope, key: StreamKey, *, stream_id: str, seq: int) -> str:
    """The text of a verified delta that came in a frame with this stream_id and seq.

    Raises Unreadable `malformed`, `bad_payload`, `bad_ciphertext` or `bad_padding`. Order and sender are
    `StreamReader`'s business.
    """
    if len(envelope.wraps) != 1:
        raise malformed("delta: not exactly one wrap")
    wrap = envelope.wraps[0]
    if not isinstance(wrap, StreamWrap) or wrap.stream_id != stream_id or wrap.seq != seq:
        raise Unreadable(Reason.BAD_PAYLOAD, "delta: not of this stream and seq")
    aad = envelope.aad
    bound_to = content_id(aad, envelope.nonce, envelope.ciphertext)
    content_key = open_stream(wrap, key.value, bound_to)
    payload = read_plaintext(open_content(content_key, envelope.nonce, envelope.ciphertext, aad))
    text = payload.get("text")
    if payload.get("type") != "delta" or type(text) is not str:
        raise Unreadable(Reason.BAD_PAYLOAD, "delta: not a delta")
    return text


class StreamReader(msgspec.Struct, frozen=True):
    """The receiver's side of one stream: whose it is, its key, and the seq that comes next."""

    stream_id: str
    key: StreamKey
    v: str
    conversation_id: str
    to: str
    sender_id: str
    sender_device: str
    next_seq: int = 0

    @classmethod
    def start(cls, envelope: Envelope, payload: dict[str, object], *, stream_id: str) -> StreamReader:
        """From the opened `stream.start` envelope; `stream_id` is the frame's. Raises `bad_payload`."""
        key = payload.get("key")
        told = payload.get("stream_id")
        if payload.get("type") != "stream" or type(key) is not str or type(told) is not str:
            raise Unreadable(Reason.BAD_PAYLOAD, "stream.start: not a stream's key")
        if told != stream_id or len(told.encode()) > MAX_ID_BYTES:
            raise Unreadable(Reason.BAD_PAYLOAD, "stream.start: another stream than the frame's")
        try:
            value = strict_base64.decode(key, KEY_BYTES)
        except Unreadable:
            raise Unreadable(Reason.BAD_PAYLOAD, "stream.start: the key") from None
        return cls(
            stream_id,
            StreamKey(value),
            envelope.v,
            envelope.conversation_id,
            envelope.to,
            envelope.sender_id,
            envelope.sender_device,
        )

    def read(self, envelope: Envelope, *, seq: int) -> tuple[StreamReader, str]:
        """The reader after this delta, and its text. Raises Unreadable as `open_delta`; then nothing changed."""
        said = (
            envelope.v,
            envelope.conversation_id,
            envelope.to,
            envelope.sender_id,
            envelope.sender_device,
        )
        if said != (self.v, self.conversation_id, self.to, self.sender_id, self.sender_device):
            raise Unreadable(Reason.BAD_PAYLOAD, "delta: not by the stream's sender")
        if seq != self.next_seq:
            raise Unreadable(Reason.BAD_PAYLOAD, "delta: out of order or repeated")
        text = open_delta(envelope, self.key, stream_id=self.stream_id, seq=seq)
        return msgspec.structs.replace(self, next_seq=seq + 1), text
