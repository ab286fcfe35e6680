"""The grant ledger: who may talk, what a key change does, and that the log cannot be edited (§5.7)."""

from __future__ import annotations

import pytest

from crypto.errors import Reason
from crypto.grants import (
    FIRST_PREVIOUS,
    Change,
    Grant,
    KeyChangePolicy,
    LedgerEntry,
    Status,
    check_grant,
    check_scope,
    decide_key_change,
    devices_seen,
    entry_mac,
    keys_seen,
    relation_changed,
    verify_ledger,
)
from tests.crypto.builders import NOW_MS, make_peer, reason_of

pytestmark = pytest.mark.pure

KEY = bytes(range(32))
OWNER = "11111111-0000-4000-8000-000000000000"
PAIR = make_peer(1).device.identity.public
OTHER = make_peer(2).device.identity.public


def _active() -> Grant:
    established = relation_changed(None, OWNER, Change.ESTABLISHED, now_ms=NOW_MS, scopes=["read"]).grant
    entry = keys_seen(established, PAIR, KeyChangePolicy.HOLD, NOW_MS)
    assert entry is not None
    assert entry.change is Change.KEYS_PINNED
    return entry.grant


def test_only_an_active_grant_with_a_pinned_pair_may_talk() -> None:
    grant = _active()
    assert check_grant(grant) == PAIR
    assert reason_of(lambda: check_grant(None)) is Reason.NO_GRANT
    for change in (Change.SUSPENDED, Change.REVOKED):
        stopped = relation_changed(grant, OWNER, change, now_ms=NOW_MS + 1).grant
        assert reason_of(lambda stopped=stopped: check_grant(stopped)) is Reason.NO_GRANT  # type: ignore[misc]
        restored = relation_changed(stopped, OWNER, Change.RESTORED, now_ms=NOW_MS + 2).grant
        assert check_grant(restored) == PAIR
    fresh = relation_changed(None, OWNER, Change.ESTABLISHED, now_ms=NOW_MS).grant
    assert reason_of(lambda: check_grant(fresh)) is Reason.UNKNOWN_SENDER


def test_scopes_bound_tool_calls() -> None:
    grant = _active()
    check_scope(grant, "read")
    assert reason_of(lambda: check_scope(grant, "write")) is Reason.NO_SCOPE
    suspended = relation_changed(grant, OWNER, Change.SUSPENDED, now_ms=NOW_MS).grant
    assert suspended.scopes == ("read",)
    widened = relation_changed(grant, OWNER, Change.ESTABLISHED, now_ms=NOW_MS, scopes=["write"]).grant
    assert widened.scopes == ("write",)


def test_the_pinned_pair_survives_revocation_and_a_new_relation() -> None:
    revoked = relation_changed(_active(), OWNER, Change.REVOKED, now_ms=NOW_MS + 1).grant
    again = relation_changed(revoked, OWNER, Change.ESTABLISHED, now_ms=NOW_MS + 2).grant
    assert again.pinned == PAIR
    assert (again.status, again.since_ms) == (Status.ACTIVE, NOW_MS + 2)


def test_a_changed_pair_is_held_by_default_until_decided() -> None:
    grant = _active()
    assert keys_seen(grant, PAIR, KeyChangePolicy.HOLD, NOW_MS) is None
    held = keys_seen(grant, OTHER, KeyChangePolicy.HOLD, NOW_MS)
    assert held is not None
    assert held.grant.pinned == PAIR
    assert reason_of(lambda: check_grant(held.grant)) is Reason.KEY_CHANGED
    assert keys_seen(held.grant, OTHER, KeyChangePolicy.HOLD, NOW_MS) is None
    accepted = decide_key_change(held.grant, OTHER, accept=True, now_ms=NOW_MS).grant
    assert check_grant(accepted) == OTHER
    assert accepted.devices == ()
    refused = decide_key_change(held.grant, OTHER, accept=False, now_ms=NOW_MS).grant
    assert check_grant(refused) == PAIR


def test_the_other_policies_decide_by_themselves() -> None:
    accepted = keys_seen(_active(), OTHER, KeyChangePolicy.ACCEPT, NOW_MS)
    assert accepted is not None
    assert check_grant(accepted.grant) == OTHER
    assert keys_seen(_active(), OTHER, KeyChangePolicy.REFUSE, NOW_MS) is None


def test_a_device_list_is_recorded_when_it_changes() -> None:
    entry = devices_seen(_active(), ["b", "a"], NOW_MS)
    assert entry is not None
    assert entry.grant.devices == ("a", "b")
    assert devices_seen(entry.grant, ["a", "b"], NOW_MS) is None


def _log() -> list[tuple[bytes, bytes]]:
    grant = _active()
    log, previous = [], FIRST_PREVIOUS
    for number in range(5):
        change = (Change.SUSPENDED, Change.RESTORED)[number % 2]
        entry = relation_changed(grant, OWNER, change, now_ms=NOW_MS + number)
        grant = entry.grant
        encoded = entry.encode()
        previous = entry_mac(KEY, previous, encoded)
        log.append((encoded, previous))
    return log


def test_a_whole_log_holds() -> None:
    log = _log()
    assert verify_ledger(KEY, log, log[-1][1]) is None
    assert verify_ledger(KEY, [], FIRST_PREVIOUS) is None
    assert LedgerEntry.decode(log[0][0]).change is Change.SUSPENDED


def test_every_edit_of_a_log_shows() -> None:
    log, head = _log(), _log()[-1][1]
    assert verify_ledger(KEY, log[:-1], head) == 4, "a cut tail"
    assert verify_ledger(KEY, log[1:], head) == 0, "a cut beginning"
    assert verify_ledger(KEY, log[:2] + log[3:], head) == 2, "one left out"
    assert verify_ledger(KEY, [*log[:2], log[3], log[2], log[4]], head) == 2, "two swapped"
    changed = (log[2][0].replace(b"suspended", b"activated"), log[2][1])
    assert verify_ledger(KEY, [*log[:2], changed, *log[3:]], head) == 2, "one changed"
    assert verify_ledger(bytes(32), log, head) == 0, "another key"


def test_stored_grants_round_trip_and_broken_ones_are_malformed() -> None:
    grant = _active()
    assert Grant.decode(grant.encode()) == grant
    for broken in (b"", b"\x80", grant.encode()[:-1], grant.encode().replace(b"active", b"wicked")):
        assert reason_of(lambda broken=broken: Grant.decode(broken)) is Reason.MALFORMED  # type: ignore[misc]
        assert reason_of(lambda broken=broken: LedgerEntry.decode(broken)) is Reason.MALFORMED  # type: ignore[misc]
