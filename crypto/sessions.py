"""Sessions with one peer device (PROTOCOL §5.4, §5.5): starting, choosing, answering, dropping, renegotiating.

Every function takes a record and returns another. What comes from outside is computed on a candidate, and the
caller keeps the result only if the content's tag fits too; on any error it keeps the record it had.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crypto.chains import SALT_BYTES, open_under, seal_under
from crypto.errors import CannotSend, DatedAhead, Reason, Unreadable, malformed
from crypto.handshake import Handshake, associated_data, initiate, respond, session_id
from crypto.identity import LocalDevice, PublicIdentity
from crypto.prekeys import Bundle, PrekeyLookup, check_bundle
from crypto.primitives import Random
from crypto.ratchet import (
    Header,
    ReceiveStep,
    decode_header,
    initiator_ratchet,
    receive_step,
    responder_ratchet,
    send_step,
)
from crypto.records import (
    DROPPED_ID_BYTES,
    EMPTY_RECORD,
    MAX_AHEAD_MS,
    MAX_OWN_SESSIONS,
    MAX_SESSIONS,
    DeviceRecord,
    Session,
    bounded,
    replace_session,
)
from crypto.renewal import heard, with_prekey
from crypto.skipped import SkippedChains, day_of, drop_expired, find_chain, park, replace_chain
from crypto.wraps import RatchetWrap

MAX_ACCEPTED_PER_DAY: Final = 100
"""New sessions that one device may make us keep in a day: each costs a one-time prekey and four agreements."""

PING_AFTER: Final = 50
"""Unanswered messages after which we ask for an answer, so that the sending chain is renewed."""


class Unwrapped(msgspec.Struct, frozen=True, gc=False):
    """A content key out of its ratchet wrap. `record` counts once the content's tag fits too."""

    record: DeviceRecord
    content_key: bytes
    used_one_time_prekey: int | None = None

    def __repr__(self) -> str:
        return "Unwrapped()"


def start_session(
    record: DeviceRecord,
    device: LocalDevice,
    bundle: Bundle,
    *,
    epoch: int,
    now_ms: int,
    random: Random,
) -> DeviceRecord:
    """The record with a new session of ours to send on.

    The caller has compared the bundle with the pinned pair (`check_bundle`); the prekey's signature is checked
    here again, before any agreement. Raises Unreadable as `check_bundle` does.
    """
    check_bundle(bundle, bundle.identity)
    record = _without_those_ahead(of_pair(record, bundle.identity), now_ms)
    started = max(now_ms, 1 + record.refused_started)
    started = max([started, *(1 + one.started for one in record.sessions if not record.is_ahead(one, now_ms))])
    shared_secret, ephemeral_key = initiate(device.identity, bundle, random)
    ad = associated_data(device.identity.public, bundle.identity)
    session = Session(
        id=session_id(ad, ephemeral_key, started),
        started=started,
        epoch=epoch,
        is_initiator=True,
        ratchet=initiator_ratchet(shared_secret, bundle.signed_prekey),
        signed_prekey_id=bundle.signed_prekey_id,
        one_time_prekey_id=bundle.one_time_prekey_id,
        handshake_key=ephemeral_key,
    )
    return with_prekey(_with_session(record, session), bundle, now_ms)


def wrap_key(
    record: DeviceRecord,
    device: LocalDevice,
    device_id: str,
    content_key: bytes,
    content_id: bytes,
    *,
    epoch: int,
    now_ms: int,
    random: Random,
) -> tuple[DeviceRecord, RatchetWrap]:
    """The content key for peer device `device_id`, by the session to send on, and the record after it.

    Raises CannotSend where `record.may_send` is False.
    """
    session, peer = record.current, record.peer
    if session is None or peer is None or not record.may_send(epoch, now_ms):
        raise CannotSend("no session that may be sent on: start one first")
    step = send_step(session.ratchet, random)
    salt = random(SALT_BYTES)
    aad = _associated_data(session, device, peer) + step.header + content_id
    handshake = None
    if session.handshake_key is not None:
        handshake = Handshake(
            device.identity.public.agreement_key,
            device.identity.public.signing_key,
            session.handshake_key,
            session.started,
            session.signed_prekey_id,
            session.one_time_prekey_id,
        )
    wrap = RatchetWrap(
        device_id,
        session.id,
        step.header,
        salt,
        seal_under(step.message_key, salt, content_key, aad),
        handshake,
    )
    after = Session(
        session.id,
        session.started,
        session.epoch,
        session.is_initiator,
        step.ratchet,
        session.signed_prekey_id,
        session.one_time_prekey_id,
        session.handshake_key,
        session.sending_since_seconds if step.ratchet.send_count > 1 else now_ms // 1000,
        session.skipped,
        session.is_lost,
    )
    return replace_session(record, after), wrap


def unwrap_key(  # noqa: PLR0917 - the wrap, whom it is for, whom it is from, and what opens it
    record: DeviceRecord,
    device: LocalDevice,
    peer_pinned: PublicIdentity,
    wrap: RatchetWrap,
    content_id: bytes,
    prekeys: PrekeyLookup,
    *,
    epoch: int,
    now_ms: int,
) -> Unwrapped:
    """The content key of a wrap for us, and the record as it will be if the content's tag fits too.

    Raises Unreadable `key_changed`, `malformed`, `no_session`, `unknown_prekey`, `too_many_skipped`,
    `key_used` or `bad_ciphertext`; the record that was passed in is then still the right one.
    """
    if wrap.handshake is not None and not wrap.handshake.is_by(peer_pinned):
        raise Unreadable(Reason.KEY_CHANGED, "the handshake has another identity pair than the pinned one")
    record = of_pair(record, peer_pinned)
    header = decode_header(wrap.header)
    session = record.find(wrap.session)
    if session is not None:
        aad = _associated_data(session, device, peer_pinned) + wrap.header + content_id
        opened, content_key = _open_in(session, wrap, header, aad, now_ms)
        after = replace_session(record, opened)
        if opened.skipped or session.skipped:
            after = bounded(after, day_of(now_ms))
        return Unwrapped(heard(after), content_key)
    if wrap.handshake is None:
        raise Unreadable(Reason.NO_SESSION, "unknown session, no handshake")
    ad = associated_data(peer_pinned, device.identity.public)
    _check_handshake(record, wrap.session, wrap.handshake, ad, now_ms)
    fresh = _respond(device, wrap.session, wrap.handshake, prekeys, epoch)
    opened, content_key = _open_in(fresh, wrap, header, ad + wrap.header + content_id, now_ms)
    counted = msgspec.structs.replace(record, accepted=record.accepted.plus_one(day_of(now_ms)))
    after = bounded(heard(_with_session(counted, opened)), day_of(now_ms))
    return Unwrapped(after, content_key, wrap.handshake.one_time_prekey_id)


def ping_due(record: DeviceRecord) -> bool:
    """Whether to send a `session.ping` now: after every 50th message in a row without an answer."""
    session = record.current
    if session is None or session.ratchet.send_chain is None:
        return False
    count = session.ratchet.send_count
    return count >= PING_AFTER and count % PING_AFTER == 0


def forget_prekey(record: DeviceRecord, signed_prekey_id: int) -> DeviceRecord:
    """The record without what is remembered for a signed prekey that has been erased."""
    kept = tuple(entry for entry in record.dropped if entry[0] != signed_prekey_id)
    return record if len(kept) == len(record.dropped) else msgspec.structs.replace(record, dropped=kept)


def of_pair(record: DeviceRecord, pinned: PublicIdentity) -> DeviceRecord:
    """What counts of a record for this pair: sessions with another pair of the same owner are neither sent nor read with any more."""
    if record.peer == pinned:
        return record
    if record.peer is None:
        return msgspec.structs.replace(record, peer=pinned)
    return DeviceRecord(pinned, (), record.accepted, offers=record.offers)


def _without_those_ahead(record: DeviceRecord, now_ms: int) -> DeviceRecord:
    """The record that sends on none of the sessions whose handshake nobody takes; the next one need not start after them either."""
    if not any(record.is_ahead(one, now_ms) for one in record.sessions):
        return record
    sessions = [
        msgspec.structs.replace(one, is_lost=True) if record.is_ahead(one, now_ms) else one for one in record.sessions
    ]
    return msgspec.structs.replace(record, sessions=tuple(sessions))


def _associated_data(session: Session, device: LocalDevice, peer: PublicIdentity) -> bytes:
    own = device.identity.public
    return associated_data(own, peer) if session.is_initiator else associated_data(peer, own)


def _check_handshake(record: DeviceRecord, told_session: bytes, handshake: Handshake, ad: bytes, now_ms: int) -> None:
    """Whether a handshake may make a session: its id fits, it is new, and the day's limit is not used up."""
    if told_session != session_id(ad, handshake.ephemeral_key, handshake.started):
        raise malformed("session: not the id of its handshake")
    if handshake.started > now_ms + MAX_AHEAD_MS:
        raise DatedAhead(Reason.MALFORMED, "handshake: started more than a day from now")
    if record.has_dropped(told_session):
        raise Unreadable(Reason.NO_SESSION, "the session has been dropped")
    if record.accepted.used_on(day_of(now_ms)) >= MAX_ACCEPTED_PER_DAY:
        raise Unreadable(Reason.NO_SESSION, f"over {MAX_ACCEPTED_PER_DAY} new sessions today")


def _respond(
    device: LocalDevice, told_session: bytes, handshake: Handshake, prekeys: PrekeyLookup, epoch: int
) -> Session:
    """The session that a handshake asks for, before anything in it has been opened.

    It may have been answered before by a state that was lost since, if its prekey is from before that: then it is read with, never sent with.
    """
    signed = prekeys.signed(handshake.signed_prekey_id)
    if signed is None:
        raise Unreadable(Reason.UNKNOWN_PREKEY, "the signed prekey is gone")
    one_time = None
    if handshake.one_time_prekey_id is not None:
        one_time = prekeys.one_time(handshake.one_time_prekey_id)
        if one_time is None:
            raise Unreadable(Reason.UNKNOWN_PREKEY, "the one-time prekey is gone")
    shared_secret = respond(device.identity, handshake, signed, one_time)
    return Session(
        id=told_session,
        started=handshake.started,
        epoch=epoch,
        is_initiator=False,
        ratchet=responder_ratchet(shared_secret, signed.private, signed.public),
        signed_prekey_id=handshake.signed_prekey_id,
        is_lost=prekeys.was_before_a_loss(handshake.signed_prekey_id),
    )


def _open_in(session: Session, wrap: RatchetWrap, header: Header, aad: bytes, now_ms: int) -> tuple[Session, bytes]:
    """The session after opening the wrap in it, and the content key."""
    skipped = session.skipped
    if skipped:
        skipped = drop_expired(skipped, day_of(now_ms))
        index = find_chain(skipped, header.ratchet_key)
        ratchet = session.ratchet
        is_current = header.ratchet_key == ratchet.their_public
        if index >= 0 and not (is_current and header.number >= ratchet.receive_count):
            place = skipped[index].find(header.number)
            if place < 0:
                raise Unreadable(Reason.KEY_USED, "the message key is gone")
            message_key = skipped[index].message_key(place)
            content_key = open_under(message_key, wrap.salt, wrap.wrapped_key, aad)
            skipped = replace_chain(skipped, index, skipped[index].without(place))
            return msgspec.structs.replace(session, skipped=skipped), content_key
    step = receive_step(session.ratchet, header)
    content_key = open_under(step.message_key, wrap.salt, wrap.wrapped_key, aad)
    if step.parked:
        skipped = park(skipped, step.parked, day_of(now_ms))
    return _answered(session, step, skipped), content_key


def _answered(session: Session, step: ReceiveStep, skipped: SkippedChains) -> Session:
    return Session(
        session.id,
        session.started,
        session.epoch,
        session.is_initiator,
        step.ratchet,
        session.signed_prekey_id,
        session.one_time_prekey_id,
        None,
        session.sending_since_seconds,
        skipped,
        session.is_lost,
    )


def _with_session(record: DeviceRecord, session: Session) -> DeviceRecord:
    """The record with a new session; of too many one that is lost is dropped, else the smallest; those not sent on are stripped.

    Those of the device and ours are counted apart: while much of what it says still waits to be read, the sessions that our answers
    begin meanwhile must not push out the ones in which it waits.
    """
    kept = sorted((*record.sessions, session), key=lambda one: one.order)
    most = MAX_OWN_SESSIONS if session.is_initiator else MAX_SESSIONS
    alike = [one for one in kept if one.is_initiator is session.is_initiator]
    remembered = record.dropped
    if len(alike) > most:
        dropped = min(alike, key=lambda one: (not one.is_lost, one.order))
        kept.remove(dropped)
        if not dropped.is_initiator:
            remembered = _remember(remembered, dropped)
    added = msgspec.structs.replace(record, sessions=tuple(kept), dropped=remembered)
    current = added.current
    retired = tuple([one if one is current else _retired(one) for one in kept])
    return msgspec.structs.replace(added, sessions=retired)


def _retired(session: Session) -> Session:
    """A session that will not be sent on again: its sending chain is erased, an answer is still read."""
    if session.ratchet.send_chain is None and session.handshake_key is None:
        return session
    ratchet = msgspec.structs.replace(
        session.ratchet, send_chain=None, own_public=None, send_count=0, previous_chain_length=0
    )
    return msgspec.structs.replace(
        session, ratchet=ratchet, handshake_key=None, one_time_prekey_id=None, sending_since_seconds=0
    )


def _remember(remembered: tuple[tuple[int, bytes], ...], session: Session) -> tuple[tuple[int, bytes], ...]:
    by_prekey = dict(remembered)
    known = by_prekey.get(session.signed_prekey_id, b"")
    by_prekey[session.signed_prekey_id] = known + session.id[:DROPPED_ID_BYTES]
    return tuple(by_prekey.items())


__all__ = [
    "EMPTY_RECORD",
    "DeviceRecord",
    "Unwrapped",
    "forget_prekey",
    "ping_due",
    "start_session",
    "unwrap_key",
    "wrap_key",
]
