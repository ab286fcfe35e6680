"""A device record: its stored form, its bounds, and that it shows no secret."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from crypto.errors import NewerFormat, Reason
from crypto.offers import KnownPrekey, Offers, Quota
from crypto.ratchet import Parked
from crypto.records import (
    EMPTY_RECORD,
    MAX_CHAINS,
    MAX_RECORD_BYTES,
    MAX_SKIPPED,
    DeviceRecord,
    Session,
    bounded,
)
from crypto.skipped import KEPT_DAYS, SkippedChain, day_of, park
from tests.crypto.builders import DAY_MS, NOW_MS, Peer, make_peer, reason_of, stream, talking_pair

pytestmark = pytest.mark.pure

TODAY = day_of(NOW_MS)
FIXTURES = Path(__file__).parent.parent / "vectors"


def _full_record(*, skipped: int = 0, chains: int = 1, dropped: int = 0) -> DeviceRecord:
    """Five sessions, all heard and sent in, with ids of the largest usual size."""
    alice, agent = make_peer(1, one_time=0), make_peer(2, one_time=0)
    for number in range(5):
        alice.now_ms = agent.now_ms = NOW_MS + 2 * number
        alice.start(agent)
        agent.open(alice, alice.seal(agent, "x"))
        alice.open(agent, agent.seal(alice, "y"))
        agent.open(alice, alice.seal(agent, "z"))
        agent.seal(alice, "w")
    record = agent.record(alice)
    random = stream(7)
    last = record.sessions[-1]
    entries: tuple[SkippedChain, ...] = ()
    for _ in range(chains if skipped else 0):
        run = Parked(random(32), 4_000_000_000, tuple(random(32) for _ in range(skipped // chains)))
        entries = park(entries, (run,), TODAY)
    sessions = tuple(msgspec.structs.replace(session, signed_prekey_id=2**32 - 1) for session in record.sessions[:-1])
    last = msgspec.structs.replace(last, signed_prekey_id=2**32 - 1, skipped=entries)
    remembered = ((2**32 - 1, random(8 * dropped)),) if dropped else ()
    return msgspec.structs.replace(record, sessions=(*sessions, last), dropped=remembered)


def test_a_record_without_skipped_keys_is_small() -> None:
    record = _full_record()
    seconds = NOW_MS // 1000
    busy = msgspec.structs.replace(
        record,
        offers=Offers(seconds, 3600, Quota(TODAY, 20), 20),
        refused_started=NOW_MS,
        prekey=KnownPrekey(2**32 - 1, bytes(32), bytes(64), seconds),
    )
    assert len(busy.sessions) == 5
    assert len(busy.encode()) <= 1024 + 150
    assert DeviceRecord.decode(busy.encode()) == busy


def test_a_record_with_everything_it_may_keep_fits_into_80_kib() -> None:
    record = bounded(_full_record(skipped=MAX_SKIPPED, chains=MAX_CHAINS, dropped=740), TODAY)
    assert len(record.encode()) <= MAX_RECORD_BYTES
    assert MAX_SKIPPED - 250 < record.skipped_count() <= MAX_SKIPPED
    assert DeviceRecord.decode(record.encode()) == record
    usual = bounded(_full_record(skipped=MAX_SKIPPED, chains=10), TODAY)
    assert usual.skipped_count() == MAX_SKIPPED
    assert len(usual.encode()) <= MAX_RECORD_BYTES


def test_the_oldest_skipped_keys_are_dropped_first() -> None:
    record = _full_record()
    random = stream(8)
    first = Parked(random(32), 0, tuple(random(32) for _ in range(1_500)))
    second = Parked(random(32), 0, tuple(random(32) for _ in range(1_000)))
    entries = park(park((), (first,), TODAY - 2), (second,), TODAY)
    last = msgspec.structs.replace(record.sessions[-1], skipped=entries)
    kept = bounded(msgspec.structs.replace(record, sessions=(*record.sessions[:-1], last)), TODAY)
    older, newer = kept.sessions[-1].skipped
    assert (older.count, newer.count) == (1_000, 1_000)
    assert older.find(499) == -1
    assert older.message_key(older.find(500)) == first.message_keys[500]


def test_more_than_100_chains_lose_the_oldest() -> None:
    record = _full_record()
    random = stream(9)
    entries: tuple[SkippedChain, ...] = ()
    for number in range(103):
        entries = park(entries, (Parked(random(32), number, (random(32),)),), TODAY)
    last = msgspec.structs.replace(record.sessions[-1], skipped=entries)
    kept = bounded(msgspec.structs.replace(record, sessions=(*record.sessions[:-1], last)), TODAY)
    assert kept.sessions[-1].skipped == entries[3:]


def test_skipped_keys_are_kept_for_30_days() -> None:
    alice, agent = talking_pair()
    late = alice.seal(agent, "late")
    later = alice.seal(agent, "later")
    agent.open(alice, alice.seal(agent, "x"))
    agent.now_ms += KEPT_DAYS * DAY_MS
    assert agent.open(alice, late) == "late"
    agent.now_ms += DAY_MS
    assert reason_of(lambda: agent.try_open(alice, later)) is Reason.KEY_USED
    agent.open(alice, alice.seal(agent, "y"))
    assert agent.record(alice).skipped_count() == 0


def test_finding_one_of_2000_keys_costs_less_than_a_derivation() -> None:
    random = stream(10)
    (chain,) = park((), (Parked(random(32), 5, tuple(random(32) for _ in range(2_000))),), TODAY)
    assert all(chain.find(number) == number - 5 for number in range(5, 2_005))
    assert chain.find(4) == chain.find(2_005) == -1
    begin = time.process_time()  # of this process alone: others may keep it waiting
    for number in range(1_000):
        chain.find(number)
    assert (time.process_time() - begin) / 1_000 < 50e-6


def test_a_used_key_is_cut_out() -> None:
    random = stream(11)
    keys = tuple(random(32) for _ in range(3))
    (chain,) = park((), (Parked(random(32), 0, keys),), TODAY)
    left = chain.without(1)
    assert left.find(1) == -1
    assert keys[1] not in left.entries
    assert left.message_key(left.find(2)) == keys[2]


def test_the_stored_form_round_trips_and_keeps_its_versions_readable() -> None:
    assert DeviceRecord.decode(EMPTY_RECORD.encode()) == EMPTY_RECORD
    record = _full_record(skipped=20, chains=2, dropped=3)
    assert DeviceRecord.decode(record.encode()) == record
    first = bytes.fromhex((FIXTURES / "device_record_v1.hex").read_text(encoding="utf-8"))
    second = bytes.fromhex((FIXTURES / "device_record_v2.hex").read_text(encoding="utf-8"))
    assert DeviceRecord.decode(first).encode() == second
    assert DeviceRecord.decode(second).encode() == second


def test_a_later_stored_form_is_told_from_a_broken_one() -> None:
    stored = _full_record(skipped=4, chains=2).encode()
    assert stored[1] == 2, "the version comes first"
    later = stored[:1] + b"\x04" + stored[2:]
    with pytest.raises(NewerFormat):
        DeviceRecord.decode(later)
    for cut in range(0, len(stored), 37):
        assert reason_of(lambda cut=cut: DeviceRecord.decode(stored[:cut])) is Reason.MALFORMED  # type: ignore[misc]


def test_no_repr_shows_a_key() -> None:
    alice, agent = talking_pair()
    agent.open(alice, alice.seal(agent, "x"))
    alice.seal(agent, "skipped")
    agent.open(alice, alice.seal(agent, "y"))
    agent.seal(alice, "z")
    shown = _shown(agent, alice)
    for secret in _secrets(agent, alice):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def _shown(agent: Peer, alice: Peer) -> str:
    record = agent.record(alice)
    session = record.sessions[-1]
    parts = (record, session, session.ratchet, session.skipped, agent.device, agent.signed, agent.one_time)
    return " ".join(repr(part) + str(part) for part in parts)


def _secrets(agent: Peer, alice: Peer) -> list[bytes]:
    session: Session = agent.record(alice).sessions[-1]
    ratchet = session.ratchet
    kept = [ratchet.root_key, ratchet.own_private, ratchet.send_chain, ratchet.receive_chain]
    keys = [key for key in kept if key is not None]
    keys += [session.skipped[0].message_key(0), agent.signed[1].private]
    keys += [prekey.private for prekey in agent.one_time.values()]
    keys += list(agent.device.identity.private_halves())
    return keys
