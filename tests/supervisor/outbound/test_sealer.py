"""With which session each device gets a message: with the one there is, with a new one, with none; and when one is offered first."""

import os

import msgspec
import pytest
import trio

from bus.records.records import Payload
from bus.steps.store import SessionWrite, now_ms
from bus.steps.write_count import WriteCount
from crypto.grants import Grant, Status
from crypto.identity import LocalDevice
from crypto.prekeys import Bundle, bundle_from_json
from crypto.records import EMPTY_RECORD, MAX_UNANSWERED, DeviceRecord, Session
from crypto.renewal import PREKEY_FRESH_SECONDS, never_sent_on, session_was_offered
from crypto.sessions import start_session
from supervisor.observe.metrics import Metrics
from supervisor.outbound.outgoing import Addressed, SealedFor
from supervisor.outbound.sealer import CannotSeal, OfferFirst, Sealer, unanswered
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.record_locks import Peer
from supervisor.peers.sessions import Loaded, Sessions
from supervisor.relay.own_words import RENEWED
from supervisor.relay.rest import RestFailed
from tests.supervisor.builders import IDENTITY
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT, CONVERSATION, PERSON, Person

pytestmark = pytest.mark.pure

PHONE: Peer = (PERSON, "phone")
AGENTS_DEVICE = LocalDevice(AGENT, AGENT, IDENTITY)
TEXT: Payload = {"type": "text", "text": "hello"}
OFFER: Payload = {"type": "system", "event": {"kind": RENEWED}}
REFUSED, UNANSWERED = RestFailed("devices", 403, "no"), RestFailed("devices", 503)


class Kept(Sessions):
    """Records in memory."""

    def __init__(self, record: DeviceRecord) -> None:
        self._record = record

    async def peek(self, peer: Peer) -> Loaded:  # noqa: ARG002 - as Sessions
        await trio.lowlevel.checkpoint()
        return Loaded(self._record, 1, 0)

    async def load_to_send(self, peer: Peer) -> Loaded:
        return await self.peek(peer)

    def seal(self, peer: Peer, read: Loaded, record: DeviceRecord) -> SessionWrite:  # noqa: ARG002 - as Sessions
        return SessionWrite(*peer, read.version, b"")


class Shown(Owners):
    """What the relay shows of the devices."""

    def __init__(self, answer: dict[str, Bundle] | RestFailed) -> None:
        self._answer = answer
        self.asked = 0

    async def bundles(self, owner: Owner) -> dict[str, Bundle]:  # noqa: ARG002 - as Owners
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if isinstance(self._answer, RestFailed):
            raise self._answer
        return self._answer


def bundle_of(person: Person) -> Bundle:
    return bundle_from_json(person.bundle, PERSON)


def begun(person: Person, *, epoch: int = 0, at_ms: int | None = None) -> DeviceRecord:
    """A record with a session that we began."""
    return start_session(
        EMPTY_RECORD, AGENTS_DEVICE, bundle_of(person), epoch=epoch, now_ms=at_ms or now_ms(), random=os.urandom
    )


class Scene:
    """A person with one device, what we know of it, and what the relay shows."""

    def __init__(
        self, person: Person, record: DeviceRecord, shown: dict[str, Bundle] | RestFailed, *, epoch: int = 0
    ) -> None:
        self.owner = Owner(Grant(PERSON, Status.ACTIVE, 1, 1, pinned=person.identity.public, devices=("phone",)), 1)
        self.relay, self.metrics, write_count = Shown(shown), Metrics(), WriteCount()
        write_count.epoch = epoch
        self.sealer = Sealer(Kept(record), self.relay, AGENTS_DEVICE, self.metrics, write_count)

    async def sealed(self, payload: Payload = TEXT, *, new_session_with: str | None = None) -> SealedFor:
        to = Addressed(self.owner, CONVERSATION, "h2a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", payload, new_session_with)
        bundles = await self.sealer.missing(to, [PHONE])
        return await self.sealer.seal(to, [PHONE], bundles or {})


def session_of(sealed: SealedFor) -> Session:
    [record] = sealed.moved
    assert record.current is not None
    return record.current


def ada() -> Person:
    return Person(FakeRest())


async def test_where_there_is_a_session_it_is_sent_on_and_nothing_is_asked() -> None:
    person = ada()
    record = begun(person)
    made = Scene(person, record, UNANSWERED)
    assert record.current is not None
    assert session_of(await made.sealed()).id == record.current.id
    assert made.relay.asked == 0


async def test_a_first_session_names_a_one_time_prekey_and_is_no_offer() -> None:
    person = ada()
    made = Scene(person, EMPTY_RECORD, {"phone": bundle_of(person)})
    sealed = await made.sealed()
    assert session_of(sealed).one_time_prekey_id is not None
    assert sealed.moved[0].offers.in_a_row == 0


async def test_after_redis_went_back_a_session_is_offered_before_anything_is_said() -> None:
    person = ada()
    made = Scene(person, begun(person), UNANSWERED, epoch=1)
    with pytest.raises(OfferFirst):
        await made.sealed()
    offer = await made.sealed(OFFER, new_session_with="phone")
    assert (session_of(offer).epoch, session_of(offer).one_time_prekey_id) == (1, None)
    assert offer.moved[0].offers.in_a_row == 1
    assert made.relay.asked == 0, "the prekey that is known will do"


async def test_the_second_offer_in_a_row_takes_a_fetched_prekey_and_still_no_one_time_prekey() -> None:
    person = ada()
    made = Scene(person, session_was_offered(begun(person)), {"phone": bundle_of(person)}, epoch=1)
    offer = await made.sealed(OFFER, new_session_with="phone")
    assert made.relay.asked == 1
    assert (session_of(offer).one_time_prekey_id, offer.moved[0].offers.in_a_row) == (None, 2)


async def test_an_open_offer_is_repeated_in_its_own_session() -> None:
    person = ada()
    record = session_was_offered(begun(person))
    assert record.current is not None
    made = Scene(person, record, UNANSWERED)
    assert session_of(await made.sealed(OFFER, new_session_with="phone")).id == record.current.id


async def test_an_answered_session_is_replaced_by_an_offer() -> None:
    person = ada()
    [session] = (record := begun(person)).sessions
    answered = msgspec.structs.replace(record, sessions=(msgspec.structs.replace(session, is_initiator=False),))
    made = Scene(person, answered, UNANSWERED)
    assert session_of(await made.sealed(OFFER, new_session_with="phone")).id != session.id


async def test_where_no_session_may_be_sent_on_an_offer_comes_first() -> None:
    person = ada()
    [session] = (record := begun(person)).sessions
    made = Scene(person, never_sent_on(record, session.id), UNANSWERED)
    with pytest.raises(OfferFirst):
        await made.sealed()


async def test_beside_an_older_session_a_lost_one_of_now_is_no_reason_to_say_anything_before_an_offer() -> None:
    person = ada()
    record = begun(person)
    record = start_session(record, AGENTS_DEVICE, bundle_of(person), epoch=1, now_ms=now_ms(), random=os.urandom)
    made = Scene(person, never_sent_on(record, record.sessions[-1].id), UNANSWERED, epoch=1)
    with pytest.raises(OfferFirst):
        await made.sealed()


async def test_a_session_that_was_unanswered_for_too_long_is_replaced_without_an_offer_first() -> None:
    person = ada()
    [session] = (record := begun(person)).sessions
    ratchet = msgspec.structs.replace(session.ratchet, send_chain=bytes(32), send_count=MAX_UNANSWERED)
    used_up = msgspec.structs.replace(session, ratchet=ratchet, sending_since_seconds=now_ms() // 1000)
    made = Scene(person, msgspec.structs.replace(record, sessions=(used_up,)), UNANSWERED)
    assert session_of(await made.sealed()).id != session.id


async def test_a_prekey_that_was_seen_too_long_ago_is_fetched() -> None:
    person = ada()
    at_ms = now_ms() - (PREKEY_FRESH_SECONDS + 60) * 1000
    made = Scene(person, begun(person, at_ms=at_ms), {"phone": bundle_of(person)}, epoch=1)
    await made.sealed(OFFER, new_session_with="phone")
    assert made.relay.asked == 1


async def test_in_sessions_with_a_former_pair_nothing_is_sent() -> None:
    """The changed keys were accepted: who has the former ones reads no more, and the new device gets a first session."""
    former, person = ada(), ada()
    made = Scene(person, begun(former), {"phone": bundle_of(person)})
    sealed = await made.sealed()
    assert made.relay.asked == 1
    assert sealed.moved[0].peer == person.identity.public
    assert len(sealed.moved[0].sessions) == 1
    assert session_of(sealed).one_time_prekey_id is not None


async def test_where_the_relay_refuses_the_session_that_there_is_will_do_or_there_is_none() -> None:
    person = ada()
    [session] = (record := begun(person)).sessions
    answered = msgspec.structs.replace(record, sessions=(msgspec.structs.replace(session, is_initiator=False),))
    made = Scene(person, session_was_offered(answered), REFUSED)
    assert session_of(await made.sealed(OFFER, new_session_with="phone")).id == session.id
    assert made.relay.asked == 1
    for epoch, lacking in ((0, EMPTY_RECORD), (1, session_was_offered(record))):
        made = Scene(person, lacking, REFUSED, epoch=epoch)
        with pytest.raises(CannotSeal, match="no_usable_device"):
            await made.sealed()
        assert made.metrics.registry.get_sample_value("hashee_device_left_out_total") == 1


async def test_a_relay_that_does_not_answer_is_waited_for() -> None:
    with pytest.raises(RestFailed):
        await Scene(ada(), EMPTY_RECORD, UNANSWERED).sealed()


async def test_a_bundle_whose_prekey_was_not_signed_by_its_own_keys_is_left_out() -> None:
    person = ada()
    forged = msgspec.structs.replace(bundle_of(person), signature=bytes(64))
    with pytest.raises(CannotSeal, match="no_usable_device"):
        await Scene(person, EMPTY_RECORD, {"phone": forged}).sealed()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"type": "text", "text": "A" * 1_100_000}, "too_large"),
        ({"type": "text", "text": float("nan")}, "payload_without_json_form"),
    ],
)
async def test_what_can_never_be_encrypted_is_said(payload: Payload, reason: str) -> None:
    person = ada()
    with pytest.raises(CannotSeal, match=reason):
        await Scene(person, begun(person), UNANSWERED).sealed(payload)


async def test_an_answer_is_asked_for_only_when_it_is_due() -> None:
    person = ada()
    made = Scene(person, begun(person), UNANSWERED)
    assert unanswered(await made.sealed()) == 0


async def test_a_device_that_is_listed_no_more_gets_nothing_and_is_counted() -> None:
    made = Scene(ada(), EMPTY_RECORD, UNANSWERED)
    assert made.sealer.now_listed(made.owner, [PHONE, (PERSON, "stolen")]) == [PHONE]
    assert made.metrics.registry.get_sample_value("hashee_device_left_out_total") == 1
