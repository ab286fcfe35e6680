"""Groups (PROTOCOL §5.6): keys by version, made by members for members, and messages under them.

A key's maker must be a member of the version before; versions only rise; we write only under the highest. The
relay hands keys around but cannot choose one: it is signed, and its maker is checked here against what we
know. There is no forward secrecy within a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from crypto import msgpack, strict_base64
from crypto.content import ContentIds, content_id, open_content, read_plaintext, seal_content
from crypto.envelope import V1, V1_1, Envelope, read_envelope, sign_envelope
from crypto.errors import CannotSend, Reason, Unreadable, malformed, stored_unreadable
from crypto.identity import LocalDevice
from crypto.msgpack import Bytes32, Unsigned32, check_ids
from crypto.primitives import KEY_BYTES, Random
from crypto.wraps import DirectWrap, GroupWrap, StreamWrap, open_direct, open_group, seal_direct, seal_group

KEPT_VERSIONS: Final = 6
"""The current version and the last five: as many rotations as a message may have been under way."""

MOST_VERSIONS_AHEAD: Final = 1_000
"""By how much a version may be above the highest known (PROTOCOL §5.6): a member who makes version 2³²−1 leaves no other to be made."""

_STORED_VERSION: Final = 1


class GroupKey(msgspec.Struct, frozen=True, array_like=True):
    """One version of a group's key, and who has it. The repr shows no key."""

    group_id: str
    key_version: Unsigned32
    key: Bytes32
    members: tuple[str, ...]

    def __repr__(self) -> str:
        return f"GroupKey(group_id={self.group_id!r}, key_version={self.key_version})"


class GroupKeys(msgspec.Struct, frozen=True):
    """The versions that we keep of one group, rising; the last is the one to write under."""

    group_id: str
    versions: tuple[GroupKey, ...] = ()

    @property
    def current(self) -> GroupKey | None:
        """The highest version seen."""
        return self.versions[-1] if self.versions else None

    def find(self, key_version: int) -> GroupKey | None:
        """The key of a kept version."""
        for key in self.versions:
            if key.key_version == key_version:
                return key
        return None

    def encode(self) -> bytes:
        """For sealed storage; holds the keys."""
        return msgpack.encode(_StoredGroupKeys(_STORED_VERSION, self.group_id, self.versions))

    @classmethod
    def decode(cls, data: bytes) -> GroupKeys:
        """The inverse of `encode`. Raises Unreadable `malformed`, NewerFormat."""
        try:
            stored = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise stored_unreadable(data, _STORED_VERSION, "stored group keys") from None
        if stored.version != _STORED_VERSION:
            raise stored_unreadable(data, _STORED_VERSION, "stored group keys")
        if len(stored.versions) > KEPT_VERSIONS:
            raise malformed("stored group keys: too many")
        return cls(stored.group_id, stored.versions)


class _StoredGroupKeys(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    group_id: str
    versions: tuple[GroupKey, ...]


_decode = msgspec.msgpack.Decoder(_StoredGroupKeys).decode


def seal_group_key(
    device: LocalDevice,
    key: GroupKey,
    *,
    conversation_id: str,
    client_message_id: str,
    recipients: Mapping[str, bytes],
    random: Random,
) -> str:
    """The `envelope` of `GET /keys/groups/:id`: v1, one direct wrap per owner in `recipients` (X25519 keys)."""
    ids = ContentIds(V1, conversation_id, key.group_id, device.owner_id, device.device_id, client_message_id)
    event = {
        "kind": "group_key",
        "group_id": key.group_id,
        "key_version": key.key_version,
        "key": strict_base64.encode(key.key),
        "members": list(key.members),
    }
    content = seal_content(ids, {"type": "system", "event": event}, random)
    wraps = tuple(
        seal_direct(
            to=owner_id,
            recipient=agreement_key,
            content_key=content.content_key,
            content_id=content.content_id,
            random=random,
        )
        for owner_id, agreement_key in recipients.items()
    )
    return sign_envelope(device, ids, content, wraps)


def read_group_key_envelope(encrypted_payload: str, group_id: str) -> Envelope:
    """The envelope of a group's key, before its maker's signature is verified under the pinned key.

    Raises Unreadable `malformed`, `unsupported_version` or `not_for_us` (of another group).
    """
    envelope = read_envelope(encrypted_payload, allow_v1=True)
    if envelope.v != V1:
        raise Unreadable(Reason.UNSUPPORTED_VERSION, "a group's key comes in v1")
    if envelope.to != group_id:
        raise Unreadable(Reason.NOT_FOR_US, "the key of another group")
    return envelope


def open_group_key(envelope: Envelope, device: LocalDevice) -> GroupKey:
    """The key in a verified envelope of `read_group_key_envelope`.

    Raises Unreadable `malformed`, `not_for_us` (no wrap for us), `bad_ciphertext`, `bad_padding` or
    `bad_payload`. Whether it may be kept, `accept_group_key` says.
    """
    payload = open_with_identity(envelope, device, device.owner_id)
    event = payload.get("event")
    if payload.get("type") != "system" or type(event) is not dict or event.get("kind") != "group_key":
        raise Unreadable(Reason.BAD_PAYLOAD, "not a group's key")
    try:
        told = msgspec.convert(event, _KeyEvent)
        key = GroupKey(told.group_id, told.key_version, strict_base64.decode(told.key, KEY_BYTES), told.members)
        check_ids(*key.members)
    except (msgspec.ValidationError, Unreadable, UnicodeError):
        raise Unreadable(Reason.BAD_PAYLOAD, "not a group's key") from None
    if key.group_id != envelope.to:
        raise Unreadable(Reason.BAD_PAYLOAD, "the key of another group")
    return key


class _KeyEvent(msgspec.Struct):
    group_id: str
    key_version: Unsigned32
    key: str
    members: tuple[str, ...]


def accept_group_key(keys: GroupKeys, key: GroupKey, maker_id: str) -> GroupKeys:
    """The kept versions with this one, if its maker was a member of the version before it.

    The first version is trusted on first use. Raises Unreadable `no_grant` (the maker was no member), `stale`
    (not above the highest seen; the very same key again changes nothing) or `unknown_group_key` (too far above it).
    """
    current = keys.current
    if key.group_id != keys.group_id:
        raise Unreadable(Reason.NOT_FOR_US, "the key of another group")
    if current is not None:
        if key.key_version <= current.key_version:
            if keys.find(key.key_version) == key:
                return keys
            raise Unreadable(Reason.STALE, "a group's key version may only rise")
        if key.key_version > current.key_version + MOST_VERSIONS_AHEAD:
            raise Unreadable(Reason.UNKNOWN_GROUP_KEY, "a version far above the highest known")
        if maker_id not in current.members:
            raise Unreadable(Reason.NO_GRANT, "the group key's maker was no member")
    return GroupKeys(keys.group_id, (*keys.versions, key)[-KEPT_VERSIONS:])


def seal_group_message(
    device: LocalDevice,
    keys: GroupKeys,
    *,
    conversation_id: str,
    client_message_id: str,
    payload: dict[str, object],
    random: Random,
) -> str:
    """A v1.1 envelope to the group under the highest version seen. Raises CannotSend without any."""
    current = keys.current
    if current is None:
        raise CannotSend("no key of this group is known")
    ids = ContentIds(V1_1, conversation_id, keys.group_id, device.owner_id, device.device_id, client_message_id)
    content = seal_content(ids, payload, random)
    wrap = seal_group(
        group_id=keys.group_id,
        key_version=current.key_version,
        group_key=current.key,
        content_key=content.content_key,
        content_id=content.content_id,
        random=random,
    )
    return sign_envelope(device, ids, content, (wrap,))


def group_key_version(envelope: Envelope) -> int:
    """The version that a v1.1 envelope is sealed under, so that its key can be fetched.

    Raises Unreadable `malformed` (not exactly one group wrap, or of another group), `bad_payload` (a delta
    outside its frame).
    """
    return _group_wrap(envelope).key_version


def open_group_message(envelope: Envelope, keys: GroupKeys) -> dict[str, object]:
    """The payload of a verified v1.1 envelope.

    Raises Unreadable `unknown_group_key` (fetch the key once and try again), `no_grant` (the sender is no
    member of that version), `bad_ciphertext`, `bad_padding`, `bad_payload`, `malformed`.
    """
    wrap = _group_wrap(envelope)
    key = keys.find(wrap.key_version) if keys.group_id == wrap.group_id else None
    if key is None:
        raise Unreadable(Reason.UNKNOWN_GROUP_KEY, "no key of this version")
    if envelope.sender_id not in key.members:
        raise Unreadable(Reason.NO_GRANT, "the sender is no member of this version")
    aad = envelope.aad
    bound_to = content_id(aad, envelope.nonce, envelope.ciphertext)
    content_key = open_group(wrap, key.key, bound_to)
    payload = read_plaintext(open_content(content_key, envelope.nonce, envelope.ciphertext, aad))
    if payload.get("type") == "delta":
        raise Unreadable(Reason.BAD_PAYLOAD, "a delta outside a stream.delta frame")
    return payload


def open_with_identity(envelope: Envelope, device: LocalDevice, wrap_to: str) -> dict[str, object]:
    """The payload of a verified v1 envelope whose direct wrap to `wrap_to` is for our identity key.

    For group keys (`wrap_to` our owner id) and for owners named in the setting `allow_v1` (our device id).
    """
    ours = [wrap for wrap in envelope.wraps if type(wrap) is DirectWrap and wrap.to == wrap_to]
    if len(ours) > 1:
        raise malformed("more than one wrap for this receiver")
    if not ours:
        raise Unreadable(Reason.NOT_FOR_US, "no wrap for us")
    wrap = ours[0]
    aad = envelope.aad
    bound_to = content_id(aad, envelope.nonce, envelope.ciphertext)
    shared = device.identity.agree(wrap.ephemeral_key)
    content_key = open_direct(wrap, shared, device.identity.public.agreement_key, bound_to)
    return read_plaintext(open_content(content_key, envelope.nonce, envelope.ciphertext, aad))


def _group_wrap(envelope: Envelope) -> GroupWrap:
    if any(type(wrap) is StreamWrap for wrap in envelope.wraps):
        if len(envelope.wraps) > 1:
            raise malformed("more than one wrap for this receiver")
        raise Unreadable(Reason.BAD_PAYLOAD, "a delta outside a stream.delta frame")
    if len(envelope.wraps) != 1:
        raise malformed("not exactly one group wrap")
    wrap = envelope.wraps[0]
    if type(wrap) is not GroupWrap or wrap.group_id != envelope.to:
        raise malformed("the wrap is not for the group addressed")
    return wrap
