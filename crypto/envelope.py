"""L3 and the whole: the signed envelope that goes over the relay (PROTOCOL §5.1), and what is done with one.

A receiver calls, in the order of §5.10: `parse_envelope`, `check_recipient`, (its own grant and pin),
`verify_signature`, (its own replay memory by `replay_id`), and only then `open_ratchet`. The body is signed as
the exact bytes that were sent, so there is no canonical form to argue about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from crypto import msgpack, strict_base64
from crypto.content import ContentIds, SealedContent, content_id, open_content, read_plaintext, seal_content
from crypto.errors import Reason, TooLarge, Unreadable, malformed
from crypto.identity import LocalDevice, PublicIdentity
from crypto.msgpack import Bytes12, Bytes64, check_ids
from crypto.prekeys import PrekeyLookup
from crypto.primitives import Random, sha256
from crypto.records import DeviceRecord
from crypto.sessions import Unwrapped, unwrap_key, wrap_key
from crypto.wraps import DirectWrap, GroupWrap, RatchetWrap, StreamWrap, Wrap

V1: Final = "hashee-envelope-v1"
V1_1: Final = "hashee-envelope-v1.1"
V1_2: Final = "hashee-envelope-v1.2"

MAX_ENVELOPE_CHARS: Final = 1024 * 1024
"""The base64 text; the decoded bytes are three quarters of it."""

MAX_WRAPS: Final = 1_024
REPLAY_ID_BYTES: Final = 8

_SIGN_PREFIX: Final = b"hashee-sign-v1\x00"
_REPLAY_PREFIX: Final = b"hashee-replay-v1\x00"

_WRAPS_OF: Final[Mapping[str, tuple[type[Wrap], ...]]] = {
    V1: (DirectWrap,),
    V1_1: (GroupWrap, StreamWrap),
    V1_2: (RatchetWrap, StreamWrap),
}


class BadContent(Unreadable):
    """`bad_padding` or `bad_payload` after the content's tag was good (§5.4).

    The ratchet has moved on: the shell commits `record` (and erases `used_one_time_prekey`) and quarantines
    `opened_plaintext`, sealed. The repr shows neither.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        opened_plaintext: bytes,
        record: DeviceRecord,
        used_one_time_prekey: int | None,
    ) -> None:
        super().__init__(reason, detail)
        self.opened_plaintext = opened_plaintext
        self.record = record
        self.used_one_time_prekey = used_one_time_prekey


class Expected(msgspec.Struct, frozen=True):
    """What the frame says, or the caller knows; the signed body must say the same."""

    conversation_id: str
    sender_id: str
    sender_device: str | None = None


class Body(msgspec.Struct, frozen=True, gc=False):
    """The signed map of §5.1, as it stands on the wire."""

    v: str
    conversation_id: str
    to: str
    sender_id: str
    sender_device: str
    client_message_id: str
    nonce: Bytes12
    ciphertext: bytes
    wraps: Annotated[tuple[Wrap, ...], msgspec.Meta(max_length=MAX_WRAPS)]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A parsed envelope, nothing of it verified yet. The repr shows ids only."""

    v: str
    conversation_id: str
    to: str
    sender_id: str
    sender_device: str
    client_message_id: str
    nonce: bytes
    ciphertext: bytes
    wraps: tuple[Wrap, ...]
    body: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"Envelope(v={self.v!r}, client_message_id={self.client_message_id!r})"

    @property
    def aad(self) -> bytes:
        """The content's associated data (§5.2)."""
        return msgpack.encode(
            [
                self.v,
                self.conversation_id,
                self.to,
                self.sender_id,
                self.sender_device,
                self.client_message_id,
            ]
        )

    @property
    def content_id(self) -> bytes:
        """What the wraps are bound to, 32 bytes."""
        return content_id(self.aad, self.nonce, self.ciphertext)

    @property
    def replay_id(self) -> bytes:
        """The 8 bytes by which a receiver remembers this envelope (§5.1)."""
        packed = msgpack.encode([self.conversation_id, self.sender_id, self.sender_device, self.client_message_id])
        return sha256(_REPLAY_PREFIX + packed)[:REPLAY_ID_BYTES]


class Opened(msgspec.Struct, frozen=True):
    """What a ratchet envelope held, and the record to commit together with it."""

    record: DeviceRecord
    payload: dict[str, object]
    used_one_time_prekey: int | None = None

    def __repr__(self) -> str:
        return "Opened()"


class Sealed(msgspec.Struct, frozen=True):
    """The bytes to send, and the records to commit before they leave the process."""

    encrypted_payload: str
    records: dict[str, DeviceRecord]


def parse_envelope(encrypted_payload: str, expected: Expected, *, allow_v1: bool = False) -> Envelope:
    """Size, base64, msgpack, version, and that the body says what the frame says; in this order.

    Raises Unreadable `malformed`, `unsupported_version` or `not_for_us`. v1 is refused unless allowed.
    """
    envelope = read_envelope(encrypted_payload, allow_v1=allow_v1)
    _check_expected(envelope, expected)
    return envelope


def read_envelope(encrypted_payload: str, *, allow_v1: bool) -> Envelope:
    """As `parse_envelope` for what did not come in a frame (a group's key): nothing is compared with one."""
    if len(encrypted_payload) > MAX_ENVELOPE_CHARS:
        raise malformed("envelope: over 1 MiB")
    outer = _outer.read(strict_base64.decode(encrypted_payload))
    return _read_body(outer.body, outer.signature, allow_v1)


def check_recipient(envelope: Envelope, owner_id: str, group_id: str | None = None) -> None:
    """For an agent: `to` is itself, or the conversation's group, and the sender somebody else.

    Raises Unreadable `not_for_us`.
    """
    if envelope.sender_id == owner_id:
        raise Unreadable(Reason.NOT_FOR_US, "our own envelope")
    if envelope.to != owner_id and (group_id is None or envelope.to != group_id):
        raise Unreadable(Reason.NOT_FOR_US, "addressed to somebody else")


def check_recipient_of_person(envelope: Envelope, device: LocalDevice, group_id: str | None = None) -> None:
    """For a person: as for an agent, but the person's own other devices may have sent it to anybody."""
    if envelope.sender_id == device.owner_id:
        if envelope.sender_device == device.device_id:
            raise Unreadable(Reason.NOT_FOR_US, "our own envelope")
        return
    check_recipient(envelope, device.owner_id, group_id)


def verify_signature(envelope: Envelope, pinned: PublicIdentity) -> None:
    """Whether the sender's pinned key signed exactly this body. Raises Unreadable `bad_signature`."""
    if not pinned.has_signed(_SIGN_PREFIX + envelope.body, envelope.signature):
        raise Unreadable(Reason.BAD_SIGNATURE, "the envelope")


def ratchet_wrap(envelope: Envelope, device_id: str) -> RatchetWrap:
    """The one ratchet wrap for this device.

    Raises Unreadable `malformed` for more than one wrap that is ours, `bad_payload` for a delta outside its
    frame, `no_session` where the sender left us out.
    """
    ours = [wrap for wrap in envelope.wraps if type(wrap) is RatchetWrap and wrap.to == device_id]
    streams = sum(type(wrap) is StreamWrap for wrap in envelope.wraps)
    if len(ours) + streams > 1:
        raise malformed("more than one wrap for this receiver")
    if streams:
        raise Unreadable(Reason.BAD_PAYLOAD, "a delta outside a stream.delta frame")
    if not ours:
        raise Unreadable(Reason.NO_SESSION, "no wrap for this device")
    return ours[0]


def handshake_prekeys(envelope: Envelope, device_id: str) -> tuple[int, int | None] | None:
    """Ids of the signed and one-time prekey that the wrap for us names, so that they can be fetched first."""
    for wrap in envelope.wraps:
        if type(wrap) is RatchetWrap and wrap.to == device_id and wrap.handshake is not None:
            return wrap.handshake.signed_prekey_id, wrap.handshake.one_time_prekey_id
    return None


def open_ratchet(
    envelope: Envelope,
    device: LocalDevice,
    peer_pinned: PublicIdentity,
    record: DeviceRecord,
    prekeys: PrekeyLookup,
    *,
    epoch: int,
    now_ms: int,
) -> Opened:
    """The payload of a verified v1.2 envelope, and the record to commit with it.

    Raises Unreadable (nothing is to be committed) or BadContent (`bad_padding`, `bad_payload`: commit its
    record and quarantine its plaintext).
    """
    wrap = ratchet_wrap(envelope, device.device_id)
    aad = envelope.aad
    bound_to = content_id(aad, envelope.nonce, envelope.ciphertext)
    unwrapped = unwrap_key(record, device, peer_pinned, wrap, bound_to, prekeys, epoch=epoch, now_ms=now_ms)
    plaintext = open_content(unwrapped.content_key, envelope.nonce, envelope.ciphertext, aad)
    payload = _read_committed(plaintext, unwrapped)
    return Opened(unwrapped.record, payload, unwrapped.used_one_time_prekey)


def seal_ratchet(
    device: LocalDevice,
    *,
    to: str,
    conversation_id: str,
    client_message_id: str,
    payload: dict[str, object],
    records: Mapping[str, DeviceRecord],
    epoch: int,
    now_ms: int,
    random: Random,
) -> Sealed:
    """A v1.2 envelope with one wrap for each device in `records`, and the records after it.

    Raises CannotSend where a record has no session that may be sent on, ValueError for a payload without a
    JSON form, TooLarge.
    """
    if not records:
        raise ValueError("no device to send to")
    ids = ContentIds(V1_2, conversation_id, to, device.owner_id, device.device_id, client_message_id)
    content = seal_content(ids, payload, random)
    after: dict[str, DeviceRecord] = {}
    wraps: list[Wrap] = []
    for device_id, record in records.items():
        after[device_id], wrap = wrap_key(
            record,
            device,
            device_id,
            content.content_key,
            content.content_id,
            epoch=epoch,
            now_ms=now_ms,
            random=random,
        )
        wraps.append(wrap)
    return Sealed(sign_envelope(device, ids, content, wraps), after)


def sign_envelope(device: LocalDevice, ids: ContentIds, content: SealedContent, wraps: Sequence[Wrap]) -> str:
    """The `encrypted_payload` of a sealed content and its wraps. Raises TooLarge."""
    body = msgpack.encode(
        Body(
            ids.v,
            ids.conversation_id,
            ids.to,
            ids.sender_id,
            ids.sender_device,
            ids.client_message_id,
            content.nonce,
            content.ciphertext,
            tuple(wraps),
        )
    )
    signature = device.identity.sign(_SIGN_PREFIX + body)
    encrypted_payload = strict_base64.encode(msgpack.encode(_Outer(body, signature)))
    if len(encrypted_payload) > MAX_ENVELOPE_CHARS or len(wraps) > MAX_WRAPS:
        raise TooLarge("the envelope would be over 1 MiB or have over 1,024 wraps")
    return encrypted_payload


class _Outer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    body: bytes
    signature: Bytes64


_outer: Final = msgpack.Typed(_Outer)
_body: Final = msgpack.Typed(Body)


def _read_body(data: bytes, signature: bytes, allow_v1: bool) -> Envelope:
    body = _body.read_shortest(data)
    if body is None:
        fields = msgpack.decode_map(data)
        _check_version(fields.get("v"), allow_v1)
        body = _body.from_fields(fields)
    else:
        _check_version(body.v, allow_v1)
    check_ids(body.conversation_id, body.to, body.sender_id, body.sender_device, body.client_message_id)
    allowed = _WRAPS_OF[body.v]
    for wrap in body.wraps:
        if type(wrap) not in allowed:
            raise malformed("wraps: a kind that this version does not have")
        wrap.check()
    return Envelope(
        body.v,
        body.conversation_id,
        body.to,
        body.sender_id,
        body.sender_device,
        body.client_message_id,
        body.nonce,
        body.ciphertext,
        body.wraps,
        data,
        signature,
    )


def _check_version(version: object, allow_v1: bool) -> None:
    if type(version) is not str:
        raise malformed("v: missing or not text")
    if version not in _WRAPS_OF:
        raise Unreadable(Reason.UNSUPPORTED_VERSION, "unknown envelope version")
    if version == V1 and not allow_v1:
        raise Unreadable(Reason.UNSUPPORTED_VERSION, "v1 is not accepted here")


def _check_expected(envelope: Envelope, expected: Expected) -> None:
    if envelope.conversation_id != expected.conversation_id:
        raise Unreadable(Reason.NOT_FOR_US, "signed for another conversation than the frame's")
    if envelope.sender_id != expected.sender_id:
        raise Unreadable(Reason.NOT_FOR_US, "signed by another sender than the frame's")
    if expected.sender_device is not None and envelope.sender_device != expected.sender_device:
        raise Unreadable(Reason.NOT_FOR_US, "signed by another device than the frame's")


def _read_committed(plaintext: bytes, unwrapped: Unwrapped) -> dict[str, object]:
    """The payload of a content whose tag was good: from here on the ratchet has moved, whatever it holds."""
    try:
        return _message_payload(plaintext)
    except Unreadable as error:
        raise BadContent(
            error.reason,
            error.detail,
            opened_plaintext=plaintext,
            record=unwrapped.record,
            used_one_time_prekey=unwrapped.used_one_time_prekey,
        ) from None


def _message_payload(plaintext: bytes) -> dict[str, object]:
    payload = read_plaintext(plaintext)
    if payload.get("type") == "delta":
        raise Unreadable(Reason.BAD_PAYLOAD, "a delta outside a stream.delta frame")
    return payload
