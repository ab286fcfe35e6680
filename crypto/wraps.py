"""L2: how a content key reaches who may have it: the four wrap kinds of PROTOCOL §5.3 and their strict reading.

Direct, group and stream wraps are sealed and opened here; a ratchet wrap is only read and written here,
since its key comes from a session. Every wrap is bound to its content by the content's id.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crypto.chains import SALT_BYTES
from crypto.handshake import Handshake
from crypto.msgpack import Bytes16, Bytes32, Bytes48, Unsigned32, check_ids
from crypto.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    Random,
    aead_open,
    aead_seal,
    agree,
    agreement_public,
    check_agreement_key,
    hkdf_sha256,
    make_agreement_private,
)

_DIRECT_INFO: Final = b"hashee-wrap-v1"
_GROUP_INFO: Final = b"hashee-group-wrap-v1"
_STREAM_INFO: Final = b"hashee-stream-wrap-v1"
_SEALED_BY: Final = KEY_BYTES + NONCE_BYTES


class DirectWrap(msgspec.Struct, frozen=True, tag_field="kind", tag="direct", omit_defaults=True, gc=False):
    """For one X25519 key; `to` is a device_id or, for group keys, an owner_id."""

    to: str
    ephemeral_key: Bytes32
    wrapped_key: Bytes48

    def check(self) -> None:
        """What the types do not say. Raises Unreadable `malformed`."""
        check_ids(self.to)
        check_agreement_key(self.ephemeral_key)


class GroupWrap(msgspec.Struct, frozen=True, tag_field="kind", tag="group", gc=False):
    """For everyone who has this version of the group's key."""

    group_id: str
    key_version: Unsigned32
    salt: Bytes16
    wrapped_key: Bytes48

    def check(self) -> None:
        """What the types do not say. Raises Unreadable `malformed`."""
        check_ids(self.group_id)


class RatchetWrap(msgspec.Struct, frozen=True, tag_field="kind", tag="ratchet", omit_defaults=True, gc=False):
    """For one device, by a session's ratchet; `header` is kept exactly as received."""

    to: str
    session: Bytes16
    header: bytes
    salt: Bytes16
    wrapped_key: Bytes48
    handshake: Handshake | None = None

    def check(self) -> None:
        """What the types do not say. Raises Unreadable `malformed`."""
        check_ids(self.to)
        if self.handshake is not None:
            self.handshake.check_keys()


class StreamWrap(msgspec.Struct, frozen=True, tag_field="kind", tag="stream", gc=False):
    """For whoever got the stream's key in `stream.start`."""

    stream_id: str
    seq: Unsigned32
    salt: Bytes16
    wrapped_key: Bytes48

    def check(self) -> None:
        """What the types do not say. Raises Unreadable `malformed`."""
        check_ids(self.stream_id)


Wrap = DirectWrap | GroupWrap | RatchetWrap | StreamWrap


def seal_direct(*, to: str, recipient: bytes, content_key: bytes, content_id: bytes, random: Random) -> DirectWrap:
    """A direct wrap for the X25519 key `recipient`, with a fresh ephemeral key."""
    ephemeral = make_agreement_private(random)
    public = agreement_public(ephemeral)
    derived = _direct_secret(agree(ephemeral, recipient), public, recipient)
    return DirectWrap(to, public, _seal(derived, content_key, content_id))


def open_direct(wrap: DirectWrap, shared: bytes, recipient: bytes, content_id: bytes) -> bytes:
    """The content key; `shared` is X25519(our private, wrap.ephemeral_key). Raises `bad_ciphertext`."""
    return _open(_direct_secret(shared, wrap.ephemeral_key, recipient), wrap.wrapped_key, content_id)


def seal_group(
    *,
    group_id: str,
    key_version: int,
    group_key: bytes,
    content_key: bytes,
    content_id: bytes,
    random: Random,
) -> GroupWrap:
    """A group wrap under this version of the group's key."""
    salt = random(SALT_BYTES)
    derived = _numbered_secret(group_key, salt, _GROUP_INFO, group_id, key_version)
    return GroupWrap(group_id, key_version, salt, _seal(derived, content_key, content_id))


def open_group(wrap: GroupWrap, group_key: bytes, content_id: bytes) -> bytes:
    """The content key. Raises Unreadable `bad_ciphertext`."""
    derived = _numbered_secret(group_key, wrap.salt, _GROUP_INFO, wrap.group_id, wrap.key_version)
    return _open(derived, wrap.wrapped_key, content_id)


def seal_stream(
    *, stream_id: str, seq: int, stream_key: bytes, content_key: bytes, content_id: bytes, random: Random
) -> StreamWrap:
    """The wrap of one delta."""
    salt = random(SALT_BYTES)
    derived = _numbered_secret(stream_key, salt, _STREAM_INFO, stream_id, seq)
    return StreamWrap(stream_id, seq, salt, _seal(derived, content_key, content_id))


def open_stream(wrap: StreamWrap, stream_key: bytes, content_id: bytes) -> bytes:
    """The content key. Raises Unreadable `bad_ciphertext`."""
    derived = _numbered_secret(stream_key, wrap.salt, _STREAM_INFO, wrap.stream_id, wrap.seq)
    return _open(derived, wrap.wrapped_key, content_id)


def _direct_secret(shared: bytes, ephemeral_public: bytes, recipient: bytes) -> bytes:
    return hkdf_sha256(ikm=shared, salt=ephemeral_public + recipient, info=_DIRECT_INFO, length=_SEALED_BY)


def _numbered_secret(key: bytes, salt: bytes, info: bytes, name: str, number: int) -> bytes:
    full_info = info + name.encode() + number.to_bytes(4, "big")
    return hkdf_sha256(ikm=key, salt=salt, info=full_info, length=_SEALED_BY)


def _seal(derived: bytes, content_key: bytes, content_id: bytes) -> bytes:
    return aead_seal(derived[:KEY_BYTES], derived[KEY_BYTES:], content_key, content_id)


def _open(derived: bytes, wrapped_key: bytes, content_id: bytes) -> bytes:
    return aead_open(derived[:KEY_BYTES], derived[KEY_BYTES:], wrapped_key, content_id)
