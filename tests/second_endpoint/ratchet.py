"""Handshake, ratchet and the choice of a session (crypto §6, §7). Every step gives a new session; who asked keeps it or not."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.second_endpoint.encoding import Random, bytes_of, integer_of, pack, unpack
from tests.second_endpoint.envelope import Wrap
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import (
    Bundle,
    Identity,
    OwnPrekeys,
    Pair,
    agree,
    checked_x25519,
    hkdf,
    hmac256,
    public_of,
    seal,
    sha256,
    unseal,
)

MOST_SKIPPED = 1_000
MOST_SESSIONS = 5
MOST_UNANSWERED = 900
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Session:
    """One session. `theirs`: their current ratchet public key; `own`: the pair last sent with, until it was answered."""

    id: bytes
    started: int
    ad: bytes
    root: bytes
    own: bytes | None = None
    theirs: bytes | None = None
    sending: bytes | None = None
    sent: int = 0
    previous: int = 0
    receiving: bytes | None = None
    received: int = 0
    handshake: Mapping[str, object] | None = None
    skipped: Mapping[tuple[bytes, int], bytes] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, bytes]:
        """The greatest is sent on."""
        return self.started, self.id


def _secret(agreements: bytes) -> bytes:
    return hkdf(b"\xff" * 32 + agreements, bytes(32), b"hashee-x3dh-v1", 32)


def _session_id(ad: bytes, ephemeral: bytes, started: int) -> bytes:
    return sha256(b"hashee-session-v1\0" + ad + ephemeral + started.to_bytes(8, "big"))[:16]


def start(identity: Identity, bundle: Bundle, started: int, random: Random) -> Session:
    """A session of ours, against a bundle that was checked."""
    ephemeral = random(32)
    agreements = (
        agree(identity.private, bundle.signed)
        + agree(ephemeral, bundle.pair.x25519)
        + agree(ephemeral, bundle.signed)
        + (agree(ephemeral, bundle.one_time) if bundle.one_time is not None else b"")
    )
    ad, public = identity.pair.both + bundle.pair.both, public_of(ephemeral)
    handshake: dict[str, object] = {
        "identity_key": identity.pair.x25519,
        "signing_key": identity.pair.ed25519,
        "ephemeral_key": public,
        "started": started,
        "signed_prekey_id": bundle.signed_id,
    }
    if bundle.one_time_id is not None:
        handshake["one_time_prekey_id"] = bundle.one_time_id
    return Session(
        _session_id(ad, public, started),
        started,
        ad,
        _secret(agreements),
        theirs=bundle.signed,
        handshake=handshake,
    )


def answer(identity: Identity, pinned: Pair, wrap: Wrap, prekeys: OwnPrekeys, now_ms: int) -> Session:
    """The session that a first message asks for. Raises Unreadable."""
    told = wrap.get("handshake")
    if not isinstance(told, dict):
        raise Unreadable("no_session")
    if (told.get("identity_key"), told.get("signing_key")) != (pinned.x25519, pinned.ed25519):
        raise Unreadable("key_changed")
    ephemeral, started = checked_x25519(bytes_of(told, "ephemeral_key", 32)), integer_of(told, "started")
    ad = pinned.both + identity.pair.both
    if wrap["session"] != _session_id(ad, ephemeral, started) or started > now_ms + DAY_MS:
        raise Unreadable("malformed", "session")
    signed = prekeys.signed.get(integer_of(told, "signed_prekey_id"))
    named = told.get("one_time_prekey_id")
    one_time = prekeys.one_time.get(named) if isinstance(named, int) else None
    if signed is None or (named is not None and one_time is None):
        raise Unreadable("unknown_prekey")
    agreements = (
        agree(signed, pinned.x25519)
        + agree(identity.private, ephemeral)
        + agree(signed, ephemeral)
        + (agree(one_time, ephemeral) if one_time is not None else b"")
    )
    return Session(bytes_of(wrap, "session", 16), started, ad, _secret(agreements), own=signed)


def _root_step(root: bytes, own: bytes, theirs: bytes) -> tuple[bytes, bytes]:
    both = hkdf(agree(own, theirs), root, b"hashee-ratchet-root-v1", 64)
    return both[:32], both[32:]


def wrap_for(
    session: Session, device_id: str, content_key: bytes, content_id: bytes, random: Random
) -> tuple[Session, Wrap]:
    """The session after a send, and the wrap."""
    if session.sending is None:
        if session.theirs is None:
            raise ValueError("who answered a handshake sends after the first message")
        fresh = random(32)
        root, sending = _root_step(session.root, fresh, session.theirs)
        session = replace(session, root=root, own=fresh, sending=sending, previous=session.sent, sent=0)
    own, chain = session.own, session.sending
    assert own is not None
    assert chain is not None
    header = pack([public_of(own), session.previous, session.sent])
    salt = random(16)
    derived = hkdf(hmac256(chain, b"\x01"), salt, b"hashee-ratchet-message-v1", 44)
    wrap: Wrap = {
        "kind": "ratchet",
        "to": device_id,
        "session": session.id,
        "header": header,
        "salt": salt,
        "wrapped_key": seal(derived, content_key, session.ad + header + content_id),
    }
    if session.handshake is not None:
        wrap["handshake"] = session.handshake
    return replace(session, sending=hmac256(chain, b"\x02"), sent=session.sent + 1), wrap


def unwrap(session: Session, wrap: Wrap, content_id: bytes) -> tuple[Session, bytes]:
    """The session after a receipt, and the content key; the caller keeps it if the content opens. Raises Unreadable."""
    header = bytes_of(wrap, "header")
    session, message_key = _step_to(session, *_read_header(header))
    derived = hkdf(message_key, bytes_of(wrap, "salt", 16), b"hashee-ratchet-message-v1", 44)
    content_key = unseal(derived, bytes_of(wrap, "wrapped_key", 48), session.ad + header + content_id)
    return replace(session, handshake=None), content_key


def _read_header(header: bytes) -> tuple[bytes, int, int]:
    parts = unpack(header)
    if not isinstance(parts, list) or len(parts) != 3:
        raise Unreadable("malformed", "header")
    named = dict(zip(("key", "previous", "number"), parts, strict=True))
    key = checked_x25519(bytes_of(named, "key", 32))
    return key, integer_of(named, "previous"), integer_of(named, "number")


def _step_to(session: Session, key: bytes, previous: int, number: int) -> tuple[Session, bytes]:
    kept = dict(session.skipped)
    if (key, number) in kept:
        message_key = kept.pop((key, number))
        return replace(session, skipped=kept), message_key
    is_new = key != session.theirs
    chain, count = session.receiving, session.received
    if not is_new and (chain is None or number < count):
        raise Unreadable("bad_ciphertext" if chain is None else "key_used")
    left = max(0, previous - count) if is_new and chain is not None else 0
    if left + (number if is_new else number - count) > MOST_SKIPPED:
        raise Unreadable("too_many_skipped")
    if is_new:
        if session.own is None:
            raise Unreadable("bad_ciphertext", "answers none of our keys")
        if left and chain is not None and session.theirs is not None:
            _step_over(chain, session.theirs, count, previous, kept)
        root, chain = _root_step(session.root, session.own, key)
        session = replace(session, root=root, own=None, theirs=key, sending=None)
        count = 0
    assert chain is not None
    chain = _step_over(chain, key, count, number + 1, kept)
    message_key = kept.pop((key, number))
    return replace(session, receiving=chain, received=number + 1, skipped=kept), message_key


def _step_over(chain: bytes, key: bytes, since: int, until: int, kept: dict[tuple[bytes, int], bytes]) -> bytes:
    for number in range(since, until):
        kept[key, number] = hmac256(chain, b"\x01")
        chain = hmac256(chain, b"\x02")
    return chain


def with_session(sessions: tuple[Session, ...], session: Session) -> tuple[Session, ...]:
    """The sessions of a device in their order, this one in the place of its former self; at most five."""
    others = [one for one in sessions if one.id != session.id]
    return tuple(sorted([*others, session], key=lambda one: one.order)[-MOST_SESSIONS:])
