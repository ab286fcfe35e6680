"""When a session that does not work any more is replaced (PROTOCOL §5.4): offers, how often, and on what nobody sends again.

An offer is a message of its own whose handshake opens a new session. Whoever could not read a signed message makes one; until it is
answered the same session is offered again, since a message may be lost, or fall under the deduplication of the relay. These functions
decide and remember; the caller sends.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from crypto.errors import Reason
from crypto.offers import KnownPrekey, Offers
from crypto.prekeys import Bundle
from crypto.records import MAX_AHEAD_MS, DeviceRecord, Session
from crypto.skipped import day_of
from crypto.wraps import RatchetWrap

RENEGOTIABLE: Final = frozenset(
    (
        Reason.NO_SESSION,
        Reason.UNKNOWN_PREKEY,
        Reason.TOO_MANY_SKIPPED,
        Reason.KEY_USED,
        Reason.BAD_CIPHERTEXT,
    )
)
"""How a message fails whose session is not ours any more; also one that was read before, and whose id is forgotten."""

FIRST_WAIT_SECONDS: Final = 10
LONGEST_WAIT_SECONDS: Final = 3_600
"""Between two offers to a device, new or repeated: doubled each time, so that a device that never answers costs 24 messages a day."""

MAX_NEW_OFFERS_PER_DAY: Final = 20
"""New sessions that one device may make us start in a day; after them the last one is repeated only."""

MAX_GIVEN_UP_PER_DAY: Final = 10
"""Of these, sessions that are given up since the relay counts more than is known here: it is the relay's word, and leaves some for real need."""

PREKEY_FRESH_SECONDS: Final = 21 * 86_400
"""How long a device's signed prekey may be used without asking: it keeps a replaced one for 30 days (§5.5)."""

DAY_SECONDS: Final = 86_400


class Renewal(enum.Enum):
    """What is to be sent to a device: nothing now, the open offer once more, or a new session."""

    NONE = "none"
    REPEAT = "repeat"
    NEW = "new"


def renewal_due(record: DeviceRecord, reason: Reason, *, epoch: int, now_ms: int) -> Renewal:
    """What a signed, new envelope that failed for `reason` calls for now; remember it with `offered`.

    `bad_ciphertext` counts only where it came from a ratchet wrap, which is the caller's to know.
    """
    if reason not in RENEGOTIABLE:
        return Renewal.NONE
    offers, now = _current_offers(record, now_ms), now_ms // 1000
    if now < offers.last_seconds + offers.wait_seconds:
        return Renewal.NONE
    if has_open_offer(record, epoch=epoch, now_ms=now_ms):
        return Renewal.REPEAT
    if offers.made.used_on(day_of(now_ms)) >= MAX_NEW_OFFERS_PER_DAY:
        return Renewal.NONE
    return Renewal.NEW


def has_open_offer(record: DeviceRecord, *, epoch: int, now_ms: int) -> bool:
    """Whether the session to send on is ours and nothing was decrypted in it: an offer goes into it once more.

    Not where the device has shown a session that started later: it would go on sending on that one.
    """
    session = record.current
    return (
        session is not None
        and session.is_unanswered
        and record.may_send(epoch, now_ms)
        and session.started > record.refused_started
    )


def offered(record: DeviceRecord, renewal: Renewal, now_ms: int) -> DeviceRecord:
    """The record after an offer, for the limits."""
    if renewal is Renewal.NONE:
        return record
    offers, now = _current_offers(record, now_ms), now_ms // 1000
    wait = min(2 * offers.wait_seconds, LONGEST_WAIT_SECONDS) if offers.wait_seconds else FIRST_WAIT_SECONDS
    made = offers.made.plus_one(day_of(now_ms)) if renewal is Renewal.NEW else offers.made
    return msgspec.structs.replace(record, offers=Offers(now, wait, made, offers.in_a_row))


def session_was_offered(record: DeviceRecord) -> DeviceRecord:
    """The record after a session was started for an offer: the next one in a row takes a fresh bundle."""
    offers = record.offers
    return msgspec.structs.replace(
        record, offers=Offers(offers.last_seconds, offers.wait_seconds, offers.made, offers.in_a_row + 1)
    )


def needs_bundle(record: DeviceRecord, now_ms: int) -> bool:
    """Whether a new session has to start from a fetched bundle: no signed prekey is known, it is old, or it was used in vain."""
    prekey, now = record.prekey, now_ms // 1000
    is_fresh = prekey is not None and 0 <= now - prekey.verified_seconds <= PREKEY_FRESH_SECONDS
    return not is_fresh or record.offers.in_a_row > 0


def known_bundle(record: DeviceRecord, owner_id: str, device_id: str) -> Bundle | None:
    """The device's last verified signed prekey as a bundle without a one-time prekey; None where none is known."""
    if record.prekey is None or record.peer is None:
        return None
    prekey = record.prekey
    return Bundle(owner_id, device_id, record.peer, prekey.id, prekey.public, prekey.signature, None, None)


def with_prekey(record: DeviceRecord, bundle: Bundle, now_ms: int) -> DeviceRecord:
    """The record that knows the signed prekey of a bundle which the caller has checked; one that it knew keeps its time."""
    known = record.prekey
    is_known = known is not None and (known.id, known.public) == (bundle.signed_prekey_id, bundle.signed_prekey)
    if record.peer != bundle.identity or is_known:
        return record
    fresh = KnownPrekey(bundle.signed_prekey_id, bundle.signed_prekey, bundle.signature, now_ms // 1000)
    return msgspec.structs.replace(record, prekey=fresh)


def heard(record: DeviceRecord) -> DeviceRecord:
    """The record after something was decrypted: the offers so far were not in vain."""
    offers = record.offers
    if not offers.in_a_row:
        return record
    return msgspec.structs.replace(record, offers=Offers(offers.last_seconds, offers.wait_seconds, offers.made))


def handshake_refused(record: DeviceRecord, wrap: RatchetWrap, now_ms: int) -> DeviceRecord:
    """The record that knows when a session started whose signed handshake could not be answered; ours must start later."""
    handshake = wrap.handshake
    if handshake is None or not record.refused_started < handshake.started <= now_ms + MAX_AHEAD_MS:
        return record
    return msgspec.structs.replace(record, refused_started=handshake.started)


def never_sent_on(record: DeviceRecord, session_id: bytes) -> DeviceRecord:
    """The record after the device has said that it cannot read this session: it is read with, never sent with."""
    sessions = tuple([_lost(one) if one.id == session_id else one for one in record.sessions])
    return record if sessions == record.sessions else msgspec.structs.replace(record, sessions=sessions)


def never_sent_on_again(record: DeviceRecord, *, epoch: int, now_ms: int) -> DeviceRecord:
    """The record none of whose sessions is sent on: more was sent in them than is remembered here (DESIGN rule 17).

    Unchanged where none would be sent on anyway, and where many new sessions were begun today: whoever says what was sent could say
    it all day.
    """
    current, offers, today = record.current, record.offers, day_of(now_ms)
    if current is None or current.epoch < epoch or offers.made.used_on(today) >= MAX_GIVEN_UP_PER_DAY:
        return record
    made = offers.made.plus_one(today)
    counted = Offers(offers.last_seconds, offers.wait_seconds, made, offers.in_a_row)
    sessions = tuple([_lost(session) for session in record.sessions])
    return msgspec.structs.replace(record, sessions=sessions, offers=counted)


def _lost(session: Session) -> Session:
    return msgspec.structs.replace(session, is_lost=True)


def _current_offers(record: DeviceRecord, now_ms: int) -> Offers:
    """What counts of the offers so far: a day after the last one the wait begins anew; one in our future counts for nothing."""
    offers, now = record.offers, now_ms // 1000
    if 0 <= now - offers.last_seconds < DAY_SECONDS:
        return offers
    return Offers(0, 0, offers.made, offers.in_a_row)
