"""The attacks that a review demonstrated against an earlier draft; each fails on a build without its guard.

One test at least for each of the ten, and for the faults of peer libraries that the checklist names.
"""

from __future__ import annotations

import msgspec
import pytest

from crypto.envelope import Expected, parse_envelope, verify_signature
from crypto.errors import Reason
from crypto.groups import (
    GroupKey,
    GroupKeys,
    accept_group_key,
    open_group_key,
    read_group_key_envelope,
    seal_group_key,
)
from crypto.prekeys import bundle_from_json, check_bundle, make_signed_prekey, prekeys_to_json
from crypto.ratchet import Header, decode_header, encode_header
from crypto.renewal import Renewal, offered, renewal_due
from crypto.sessions import start_session
from tests.crypto.builders import (
    CONVERSATION,
    DAY_MS,
    NOW_MS,
    Peer,
    make_peer,
    only_wrap,
    reason_of,
    resign,
    stream,
    talking_pair,
)

pytestmark = pytest.mark.pure

GROUP = "33333333-0000-4000-8000-000000000000"


def test_a_replay_under_a_new_seq_is_known_by_what_was_signed_and_opens_nothing() -> None:
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "pay 10")
    first = agent.parse(alice, sealed)
    agent.open(alice, sealed)
    again = agent.parse(alice, sealed)
    assert again.replay_id == first.replay_id
    assert len(first.replay_id) == 8
    before = agent.record(alice)
    assert reason_of(lambda: agent.try_open(alice, sealed)) is Reason.KEY_USED
    assert agent.record(alice) == before


def test_a_replay_id_changes_with_every_signed_part_of_it() -> None:
    alice, agent = talking_pair()
    envelope = agent.parse(alice, alice.seal(agent, "x"))
    ids = {envelope.replay_id}
    for part in ("conversation_id", "sender_id", "sender_device", "client_message_id"):
        ids.add(msgspec.structs.replace(envelope, **{part: "other"}).replay_id)
    assert len(ids) == 5


@pytest.mark.parametrize("with_one_time", [True, False])
def test_a_replayed_first_message_finds_its_session(with_one_time: bool) -> None:
    alice, agent = make_peer(1), make_peer(2)
    alice.start(agent, with_one_time=with_one_time)
    first = alice.seal(agent, "first")
    agent.open(alice, first)
    assert reason_of(lambda: agent.try_open(alice, first)) is Reason.KEY_USED
    agent.open(alice, alice.seal(agent, "second"))
    assert reason_of(lambda: agent.try_open(alice, first)) is Reason.KEY_USED
    assert len(agent.record(alice).sessions) == 1


@pytest.mark.parametrize("with_one_time", [True, False])
def test_a_first_message_of_a_dropped_session_never_makes_a_second_one(with_one_time: bool) -> None:
    alice, agent = make_peer(1, one_time=20), make_peer(2, one_time=20)
    kept = dict(agent.one_time)
    alice.start(agent, with_one_time=with_one_time)
    first = alice.seal(agent, "first")
    agent.open(alice, first)
    for number in range(5):
        alice.now_ms += 1_000
        alice.start(agent, with_one_time=with_one_time)
        agent.open(alice, alice.seal(agent, f"newer {number}"))
    agent.one_time = kept
    before = agent.record(alice)
    assert len(before.sessions) == 5
    assert reason_of(lambda: agent.try_open(alice, first)) is Reason.NO_SESSION
    assert agent.record(alice) == before


def test_a_withheld_message_does_not_move_sending_back_to_an_old_session() -> None:
    alice, agent = talking_pair()
    withheld = alice.seal(agent, "withheld")
    alice.now_ms += 60_000
    alice.start(agent)
    agent.open(alice, alice.seal(agent, "in the new session"))
    newest = agent.record(alice).current
    assert agent.open(alice, withheld) == "withheld"
    assert newest is not None
    assert only_wrap(agent, agent.seal(alice, "answer")).session == newest.id


def test_a_bundle_copied_to_another_owner_or_device_is_refused() -> None:
    alice, agent = make_peer(1), make_peer(2)
    genuine = alice.bundle()
    pinned = genuine.identity
    check_bundle(genuine, pinned)
    for changes in ({"owner_id": agent.device.owner_id}, {"device_id": "another"}, {"signed_prekey_id": 7}):
        copied = msgspec.structs.replace(genuine, **changes)
        assert reason_of(lambda copied=copied: check_bundle(copied, pinned)) is Reason.BAD_SIGNATURE  # type: ignore[misc]


def test_a_handshake_with_a_foreign_x25519_key_is_a_key_change() -> None:
    alice, agent, mallory = make_peer(1), make_peer(2), make_peer(3)
    sealed = alice.seal(agent, "x")
    wrap = only_wrap(alice, sealed)
    assert wrap.handshake is not None
    foreign = mallory.device.identity.public
    for changes in ({"identity_key": foreign.agreement_key}, {"signing_key": foreign.signing_key}):
        handshake = msgspec.structs.replace(wrap.handshake, **changes)
        forged = resign(alice, sealed, wraps=(msgspec.structs.replace(wrap, handshake=handshake),))
        assert reason_of(lambda forged=forged: agent.try_open(alice, forged)) is Reason.KEY_CHANGED  # type: ignore[misc]
    assert agent.open(alice, sealed) == "x"


def test_a_ghost_device_gets_no_session() -> None:
    """The relay lists a device of its own making under a person's pair, or with a pair of its own."""
    alice, ghost = make_peer(1), make_peer(3)
    pinned = alice.device.identity.public
    listed = msgspec.structs.replace(ghost.bundle(), owner_id=alice.device.owner_id)
    assert reason_of(lambda: check_bundle(listed, pinned)) is Reason.KEY_CHANGED
    claimed = msgspec.structs.replace(listed, identity=pinned)
    assert reason_of(lambda: check_bundle(claimed, pinned)) is Reason.BAD_SIGNATURE


def test_a_stripped_signed_prekey_is_refused_wherever_it_enters() -> None:
    alice, agent = make_peer(1), make_peer(2)
    genuine = alice.bundle()
    entry = prekeys_to_json(alice.device, alice.signed[1], [])
    del entry["one_time_prekeys"]
    assert bundle_from_json(entry, alice.device.owner_id).signed_prekey == genuine.signed_prekey
    without = {key: value for key, value in entry.items() if key != "signed_prekey"}
    assert reason_of(lambda: bundle_from_json(without, alice.device.owner_id)) is Reason.MALFORMED
    unsigned = msgspec.structs.replace(genuine, signature=bytes(64))
    assert reason_of(lambda: check_bundle(unsigned, genuine.identity)) is Reason.BAD_SIGNATURE
    swapped = msgspec.structs.replace(genuine, signed_prekey=agent.signed[1].public)
    assert reason_of(lambda: check_bundle(swapped, genuine.identity)) is Reason.BAD_SIGNATURE

    def start() -> object:
        return start_session(agent.record(alice), agent.device, swapped, epoch=0, now_ms=NOW_MS, random=agent.random)

    assert reason_of(start) is Reason.BAD_SIGNATURE


def _group_key(maker: Peer, version: int, members: tuple[Peer, ...]) -> str:
    key = GroupKey(GROUP, version, maker.random(32), tuple(peer.device.owner_id for peer in members))
    return seal_group_key(
        maker.device,
        key,
        conversation_id=CONVERSATION,
        client_message_id="01J000000000000000000GROUP",
        recipients={peer.device.owner_id: peer.device.identity.public.agreement_key for peer in members},
        random=maker.random,
    )


def test_a_group_key_chosen_by_the_relay_is_refused() -> None:
    alice, agent, mallory = make_peer(1), make_peer(2), make_peer(3)
    first = read_group_key_envelope(_group_key(alice, 1, (alice, agent)), GROUP)
    verify_signature(first, alice.device.identity.public)
    keys = accept_group_key(GroupKeys(GROUP), open_group_key(first, agent.device), first.sender_id)

    chosen = read_group_key_envelope(_group_key(mallory, 2, (mallory, agent)), GROUP)
    opened = open_group_key(chosen, agent.device)
    assert reason_of(lambda: accept_group_key(keys, opened, chosen.sender_id)) is Reason.NO_GRANT

    pretended = msgspec.structs.replace(chosen, sender_id=alice.device.owner_id)
    assert reason_of(lambda: verify_signature(pretended, alice.device.identity.public)) is Reason.BAD_SIGNATURE
    older = read_group_key_envelope(_group_key(alice, 1, (alice, agent)), GROUP)
    again = open_group_key(older, agent.device)
    assert reason_of(lambda: accept_group_key(keys, again, older.sender_id)) is Reason.STALE
    assert reason_of(lambda: read_group_key_envelope(_group_key(alice, 2, (alice,)), "x")) is Reason.NOT_FOR_US


def test_another_persons_message_put_into_a_conversation_is_refused() -> None:
    alice, agent, mallory = make_peer(1), make_peer(2), make_peer(3)
    sealed = mallory.seal(agent, "I am alice")
    assert reason_of(lambda: parse_envelope(sealed, Expected(CONVERSATION, alice.device.owner_id))) is Reason.NOT_FOR_US
    elsewhere = Expected("another conversation", mallory.device.owner_id)
    assert reason_of(lambda: parse_envelope(sealed, elsewhere)) is Reason.NOT_FOR_US
    renamed = resign(mallory, sealed, sender_id=alice.device.owner_id)
    assert reason_of(lambda: agent.parse(alice, renamed)) in (Reason.BAD_SIGNATURE, Reason.NOT_FOR_US)
    to_somebody_else = resign(alice, alice.seal(agent, "x"), to=mallory.device.owner_id)
    assert reason_of(lambda: agent.parse(alice, to_somebody_else)) is Reason.NOT_FOR_US


def test_our_own_envelope_sent_back_to_us_is_dropped() -> None:
    alice, agent = talking_pair()
    own = agent.seal(alice, "mine")
    assert reason_of(lambda: agent.parse(agent, own)) is Reason.NOT_FOR_US


def test_fifty_forged_first_messages_burn_no_prekey() -> None:
    alice, agent = make_peer(1), make_peer(2)
    sealed = alice.seal(agent, "genuine")
    wrap = only_wrap(alice, sealed)
    prekeys = dict(agent.one_time)
    for number in range(50):
        salt = number.to_bytes(16, "big")
        forged = resign(alice, sealed, wraps=(msgspec.structs.replace(wrap, salt=salt),))
        assert reason_of(lambda forged=forged: agent.try_open(alice, forged)) is Reason.BAD_CIPHERTEXT  # type: ignore[misc]
    assert agent.one_time == prekeys
    assert agent.open(alice, sealed) == "genuine"
    assert len(agent.one_time) == len(prekeys) - 1


def test_a_forged_header_kills_no_session() -> None:
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "genuine")
    wrap = only_wrap(alice, sealed)
    header = decode_header(wrap.header)
    stored = agent.record(alice).encode()
    other_key = make_signed_prekey(alice.device, 9, NOW_MS, stream(99)).public
    for forged_header in (
        Header(other_key, 0, 0),
        Header(header.ratchet_key, header.previous_chain_length, header.number + 900),
        Header(header.ratchet_key, header.previous_chain_length + 1, header.number),
    ):
        changed = msgspec.structs.replace(wrap, header=encode_header(forged_header))
        forged = resign(alice, sealed, wraps=(changed,))
        assert reason_of(lambda forged=forged: agent.try_open(alice, forged)) is Reason.BAD_CIPHERTEXT  # type: ignore[misc]
    not_canonical = msgspec.structs.replace(wrap, header=encode_header(Header(b"\xff" * 32, 0, 5_000)))
    forged = resign(alice, sealed, wraps=(not_canonical,))
    assert reason_of(lambda: agent.try_open(alice, forged)) is Reason.MALFORMED
    too_far = msgspec.structs.replace(wrap, header=encode_header(Header(header.ratchet_key, 0, 5_000)))
    forged = resign(alice, sealed, wraps=(too_far,))
    assert reason_of(lambda: agent.try_open(alice, forged)) is Reason.TOO_MANY_SKIPPED
    assert agent.record(alice).encode() == stored
    assert agent.open(alice, sealed) == "genuine"


def test_a_header_in_another_encoding_does_not_open() -> None:
    """The header goes into the associated data exactly as received."""
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "genuine")
    wrap = only_wrap(alice, sealed)
    header = decode_header(wrap.header)
    longer = b"\x93\xc4\x20" + header.ratchet_key
    longer += b"\xcc" + bytes([header.previous_chain_length]) + b"\xcc" + bytes([header.number])
    assert decode_header(longer) == header
    forged = resign(alice, sealed, wraps=(msgspec.structs.replace(wrap, header=longer),))
    assert reason_of(lambda: agent.try_open(alice, forged)) is Reason.BAD_CIPHERTEXT


def test_a_content_under_another_wrap_does_not_open() -> None:
    alice, agent = talking_pair()
    one, other = alice.seal(agent, "one"), alice.seal(agent, "other")
    mixed = resign(alice, one, wraps=(only_wrap(alice, other),))
    assert reason_of(lambda: agent.try_open(alice, mixed)) is Reason.BAD_CIPHERTEXT
    assert agent.open(alice, one) == "one"


def test_nobody_can_force_endless_renegotiation() -> None:
    alice, agent = talking_pair()
    record, made = agent.record(alice), dict.fromkeys(Renewal, 0)
    now_ms = NOW_MS - NOW_MS % DAY_MS + DAY_MS
    for _ in range(24 * 60 - 1):
        now_ms += 60_000
        renewal = renewal_due(record, Reason.NO_SESSION, epoch=0, now_ms=now_ms)
        record = offered(record, renewal, now_ms)
        made[renewal] += 1
    assert made[Renewal.NEW] == 20, (
        "the alternative to sending them is that the attacker never answers: then they are repeated"
    )
    assert renewal_due(record, Reason.BAD_SIGNATURE, epoch=0, now_ms=now_ms + 10**9) is Renewal.NONE
    assert renewal_due(record, Reason.MALFORMED, epoch=0, now_ms=now_ms + 10**9) is Renewal.NONE


def test_a_device_that_never_answers_costs_a_message_an_hour() -> None:
    alice, agent = talking_pair()
    agent.now_ms += 1
    agent.start(alice)
    record, now_ms, sent = agent.record(alice), NOW_MS, 0
    for _ in range(24 * 60):
        now_ms += 60_000
        renewal = renewal_due(record, Reason.NO_SESSION, epoch=0, now_ms=now_ms)
        assert renewal is not Renewal.NEW
        record = offered(record, renewal, now_ms)
        sent += renewal is Renewal.REPEAT
    assert 24 <= sent <= 24 + 9


def test_v1_and_unknown_versions_are_no_way_down() -> None:
    alice, agent = talking_pair()
    sealed = alice.seal(agent, "x")
    for version in ("hashee-envelope-v1", "hashee-envelope-v2", ""):
        down = resign(alice, sealed, v=version, wraps=())
        assert reason_of(lambda down=down: agent.parse(alice, down)) is Reason.UNSUPPORTED_VERSION  # type: ignore[misc]
    assert reason_of(lambda: agent.parse(alice, resign(alice, sealed, v="hashee-envelope-v1.1"))) is Reason.MALFORMED
