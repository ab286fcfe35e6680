"""Keys of groups, and messages under them (crypto §8)."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.second_endpoint.encoding import Random, from_base64, integer_of, to_base64
from tests.second_endpoint.envelope import (
    V1,
    V1_1,
    Envelope,
    Ids,
    Payload,
    Wrap,
    close_envelope,
    direct_wrap,
    group_wrap,
    open_direct,
    open_group,
    seal_content,
    the_wrap,
)
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import Identity

KEPT = 6
MOST_VERSIONS_AHEAD = 1_000


@dataclass(frozen=True)
class GroupKey:
    """One version."""

    group_id: str
    version: int
    key: bytes
    members: tuple[str, ...]


def seal_group_key(ids: Ids, key: GroupKey, recipients: Mapping[str, bytes], identity: Identity, random: Random) -> str:
    """The envelope of a key; `recipients`: the X25519 identity key of each member."""
    event = {
        "kind": "group_key",
        "group_id": key.group_id,
        "key_version": key.version,
        "key": to_base64(key.key),
        "members": list(key.members),
    }
    content = seal_content(ids, {"type": "system", "event": event}, random)
    wraps = [direct_wrap(owner_id, recipient, content, random) for owner_id, recipient in recipients.items()]
    return close_envelope(ids, content, wraps, identity)


def open_group_key(envelope: Envelope, owner_id: str, identity: Identity) -> GroupKey:
    """The key in a verified envelope. Raises Unreadable."""
    if envelope.ids.v != V1:
        raise Unreadable("unsupported_version")
    wrap = the_wrap(envelope, "direct", "to", owner_id, "not_for_us")
    event = envelope.payload(open_direct(wrap, identity, envelope.content_id)).get("event")
    if not isinstance(event, dict) or event.get("kind") != "group_key" or event.get("group_id") != envelope.ids.to:
        raise Unreadable("bad_payload")
    members = event["members"]
    return GroupKey(
        envelope.ids.to, integer_of(event, "key_version"), from_base64(event.get("key"), 32), tuple(members)
    )


def accept_key(known: tuple[GroupKey, ...], key: GroupKey, maker_id: str) -> tuple[GroupKey, ...]:
    """The kept versions with this one. Raises Unreadable `stale`, `unknown_group_key`, `no_grant`."""
    if known:
        if key.version <= known[-1].version:
            raise Unreadable("stale")
        if key.version > known[-1].version + MOST_VERSIONS_AHEAD:
            raise Unreadable("unknown_group_key")
        if maker_id not in known[-1].members:
            raise Unreadable("no_grant")
    return (*known, key)[-KEPT:]


def seal_group_message(ids: Ids, key: GroupKey, payload: Payload, identity: Identity, random: Random) -> str:
    """A message to the group under this version."""
    content = seal_content(ids, payload, random)
    wrap = group_wrap(key.group_id, key.version, key.key, content, random)
    return close_envelope(ids, content, [wrap], identity)


def read_group_wrap(envelope: Envelope) -> Wrap:
    """The one group wrap of a message. Raises Unreadable."""
    if envelope.ids.v != V1_1:
        raise Unreadable("unsupported_version")
    if len(envelope.wraps) != 1:
        raise Unreadable("malformed", "not exactly one wrap")
    (wrap,) = envelope.wraps
    if wrap["kind"] == "stream":
        raise Unreadable("bad_payload", "a delta outside of its frame")
    if wrap.get("group_id") != envelope.ids.to:
        raise Unreadable("malformed", "of another group")
    return wrap


def open_group_message(envelope: Envelope, known: tuple[GroupKey, ...]) -> Payload:
    """The payload of a verified message. Raises Unreadable."""
    wrap = read_group_wrap(envelope)
    found = [key for key in known if key.version == wrap.get("key_version")]
    if not found:
        raise Unreadable("unknown_group_key")
    if envelope.ids.sender_id not in found[0].members:
        raise Unreadable("no_grant")
    return envelope.payload(open_group(wrap, found[0].key, envelope.content_id))
