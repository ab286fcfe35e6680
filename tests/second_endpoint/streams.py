"""An answer that grows (wire §3.3, crypto §8)."""

from dataclasses import dataclass, replace

from tests.second_endpoint.encoding import Random, from_base64, to_base64
from tests.second_endpoint.envelope import (
    Envelope,
    Ids,
    Payload,
    close_envelope,
    open_stream,
    seal_content,
    stream_wrap,
)
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import Identity


@dataclass(frozen=True)
class Growing:
    """A stream as far as it has come."""

    stream_id: str
    key: bytes
    begun: Ids
    text: str = ""
    pieces: int = 0


def start_payload(stream_id: str, key: bytes) -> Payload:
    """What the envelope of `stream.start` carries."""
    return {"type": "stream", "stream_id": stream_id, "key": to_base64(key)}


def seal_delta(ids: Ids, growing: Growing, text: str, identity: Identity, random: Random) -> str:
    """The next piece of a stream of ours."""
    content = seal_content(ids, {"type": "delta", "text": text}, random)
    wrap = stream_wrap(growing.stream_id, growing.pieces, growing.key, content, random)
    return close_envelope(ids, content, [wrap], identity)


def begin(envelope: Envelope, payload: Payload, stream_id: str) -> Growing:
    """From the opened envelope of a `stream.start` frame. Raises Unreadable `bad_payload`."""
    if payload.get("type") != "stream" or payload.get("stream_id") != stream_id:
        raise Unreadable("bad_payload")
    return Growing(stream_id, from_base64(payload.get("key"), 32), envelope.ids)


def grow(growing: Growing, envelope: Envelope, seq: int) -> Growing:
    """The stream after a verified delta that came with this seq. Raises Unreadable `bad_payload` and the content's."""
    if replace(envelope.ids, client_message_id=growing.begun.client_message_id) != growing.begun:
        raise Unreadable("bad_payload", "not by the stream's sender")
    if seq != growing.pieces or len(envelope.wraps) != 1:
        raise Unreadable("bad_payload", "out of order")
    (wrap,) = envelope.wraps
    if (wrap["kind"], wrap.get("stream_id"), wrap.get("seq")) != ("stream", growing.stream_id, seq):
        raise Unreadable("bad_payload", "of another stream or place")
    payload = envelope.payload(open_stream(wrap, growing.key, envelope.content_id))
    text = payload.get("text")
    if payload.get("type") != "delta" or not isinstance(text, str):
        raise Unreadable("bad_payload", "no delta")
    return replace(growing, text=growing.text + text, pieces=seq + 1)
