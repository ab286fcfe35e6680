"""Group keys by version and messages under them (PROTOCOL §5.6)."""

from __future__ import annotations

import msgspec
import pytest

from crypto.envelope import V1_1, Envelope, Expected, parse_envelope, verify_signature
from crypto.errors import CannotSend, Reason
from crypto.groups import (
    GroupKey,
    GroupKeys,
    accept_group_key,
    group_key_version,
    open_group_key,
    open_group_message,
    read_group_key_envelope,
    seal_group_key,
    seal_group_message,
)
from crypto.streams import StreamKey, StreamReader, seal_delta
from tests.crypto.builders import CONVERSATION, Peer, make_peer, reason_of, text

pytestmark = pytest.mark.pure

GROUP = "33333333-0000-4000-8000-000000000000"


def _key(version: int, *members: Peer) -> GroupKey:
    maker = members[0]
    return GroupKey(GROUP, version, maker.random(32), tuple(one.device.owner_id for one in members))


def _distributed(maker: Peer, key: GroupKey, receiver: Peer) -> GroupKey:
    """The key's way over the relay, up to the receiver."""
    sealed = seal_group_key(
        maker.device,
        key,
        conversation_id=CONVERSATION,
        client_message_id="01J000000000000000000GROUP",
        recipients={receiver.device.owner_id: receiver.device.identity.public.agreement_key},
        random=maker.random,
    )
    envelope = read_group_key_envelope(sealed, GROUP)
    verify_signature(envelope, maker.device.identity.public)
    return open_group_key(envelope, receiver.device)


def _said(sender: Peer, keys: GroupKeys, words: str) -> Envelope:
    sealed = seal_group_message(
        sender.device,
        keys,
        conversation_id=CONVERSATION,
        client_message_id="01J0000000000000000000GMSG",
        payload=text(words),
        random=sender.random,
    )
    envelope = parse_envelope(sealed, Expected(CONVERSATION, sender.device.owner_id))
    verify_signature(envelope, sender.device.identity.public)
    return envelope


def test_members_talk_under_a_distributed_key() -> None:
    alice, agent = make_peer(1), make_peer(2)
    key = _key(1, alice, agent)
    received = _distributed(alice, key, agent)
    assert received == key
    hers, ours = GroupKeys(GROUP, (key,)), accept_group_key(GroupKeys(GROUP), received, alice.device.owner_id)
    envelope = _said(alice, hers, "hello all")
    assert envelope.v == V1_1
    assert group_key_version(envelope) == 1
    assert open_group_message(envelope, ours) == text("hello all")
    assert open_group_message(_said(agent, ours, "hi"), hers) == text("hi")


def test_versions_only_rise_and_the_last_six_are_kept() -> None:
    alice, agent = make_peer(1), make_peer(2)
    keys = GroupKeys(GROUP)
    made = [_key(version, alice, agent) for version in range(1, 10)]
    for key in made:
        keys = accept_group_key(keys, key, alice.device.owner_id)
    assert [key.key_version for key in keys.versions] == [4, 5, 6, 7, 8, 9]
    assert accept_group_key(keys, made[8], alice.device.owner_id) is keys
    for stale in (made[0], _key(9, alice, agent), _key(5, alice, agent)):
        assert reason_of(lambda key=stale: accept_group_key(keys, key, alice.device.owner_id)) is Reason.STALE  # type: ignore[misc]
    late = _said(alice, GroupKeys(GROUP, (made[3],)), "late")
    assert open_group_message(late, keys) == text("late")
    too_late = _said(alice, GroupKeys(GROUP, (made[2],)), "too late")
    assert reason_of(lambda: open_group_message(too_late, keys)) is Reason.UNKNOWN_GROUP_KEY


def test_a_sender_outside_the_versions_members_has_no_grant() -> None:
    alice, agent, bob = make_peer(1), make_peer(2), make_peer(3)
    with_bob = _key(1, alice, agent, bob)
    without = _key(2, alice, agent)
    keys = GroupKeys(GROUP, (with_bob, without))
    assert open_group_message(_said(bob, GroupKeys(GROUP, (with_bob,)), "x"), keys) == text("x")
    gone = _said(bob, GroupKeys(GROUP, (without,)), "x")
    assert reason_of(lambda: open_group_message(gone, keys)) is Reason.NO_GRANT
    after = _key(3, bob, alice)
    assert reason_of(lambda: accept_group_key(keys, after, bob.device.owner_id)) is Reason.NO_GRANT


def test_without_a_key_nothing_is_read_or_written() -> None:
    alice = make_peer(1)
    envelope = _said(alice, GroupKeys(GROUP, (_key(1, alice),)), "x")
    assert reason_of(lambda: open_group_message(envelope, GroupKeys(GROUP))) is Reason.UNKNOWN_GROUP_KEY
    with pytest.raises(CannotSend):
        _said(alice, GroupKeys(GROUP), "x")


def test_a_wrap_for_another_group_version_or_content_does_not_open() -> None:
    alice = make_peer(1)
    keys = GroupKeys(GROUP, (_key(1, alice), _key(2, alice)))
    envelope, other = _said(alice, keys, "x"), _said(alice, keys, "y")
    (wrap,) = envelope.wraps
    for wraps, reason in (
        ((), Reason.MALFORMED),
        ((wrap, wrap), Reason.MALFORMED),
        ((msgspec.structs.replace(wrap, group_id="another"),), Reason.MALFORMED),
        ((msgspec.structs.replace(wrap, key_version=1),), Reason.BAD_CIPHERTEXT),
        ((msgspec.structs.replace(wrap, key_version=7),), Reason.UNKNOWN_GROUP_KEY),
        (other.wraps, Reason.BAD_CIPHERTEXT),
    ):
        changed = msgspec.structs.replace(envelope, wraps=wraps)
        assert reason_of(lambda changed=changed: open_group_message(changed, keys)) is reason  # type: ignore[misc]


def test_a_key_envelope_without_a_wrap_for_us_or_with_another_payload_is_refused() -> None:
    alice, agent, bob = make_peer(1), make_peer(2), make_peer(3)
    key = _key(1, alice, agent)
    assert _distributed(alice, key, agent) == key
    sealed = seal_group_key(
        alice.device,
        key,
        conversation_id=CONVERSATION,
        client_message_id="01J000000000000000000GROUP",
        recipients={agent.device.owner_id: agent.device.identity.public.agreement_key},
        random=alice.random,
    )
    envelope = read_group_key_envelope(sealed, GROUP)
    assert reason_of(lambda: open_group_key(envelope, bob.device)) is Reason.NOT_FOR_US
    twice = msgspec.structs.replace(envelope, wraps=envelope.wraps * 2)
    assert reason_of(lambda: open_group_key(twice, agent.device)) is Reason.MALFORMED
    moved = msgspec.structs.replace(envelope, to="another group")
    assert reason_of(lambda: open_group_key(moved, agent.device)) is Reason.BAD_CIPHERTEXT
    message = _said(alice, GroupKeys(GROUP, (key,)), "x")
    assert reason_of(lambda: open_group_key(message, agent.device)) is Reason.NOT_FOR_US
    expected = Expected(CONVERSATION, alice.device.owner_id)
    assert reason_of(lambda: parse_envelope(sealed, expected)) is Reason.UNSUPPORTED_VERSION


def test_a_stream_in_a_group_goes_with_v1_1() -> None:
    alice, agent = make_peer(1), make_peer(2)
    keys = GroupKeys(GROUP, (_key(1, alice, agent),))
    stream_id, key = "01J00000000000000000STREAM", StreamKey.generate(agent.random)
    sealed = seal_delta(
        agent.device,
        key,
        v=V1_1,
        to=GROUP,
        conversation_id=CONVERSATION,
        client_message_id="01J0000000000000000000DLTA",
        stream_id=stream_id,
        seq=0,
        text="word",
        random=agent.random,
    )
    delta = parse_envelope(sealed, Expected(CONVERSATION, agent.device.owner_id))
    reader = StreamReader(stream_id, key, V1_1, CONVERSATION, GROUP, agent.device.owner_id, agent.device.device_id)
    assert reader.read(delta, seq=0)[1] == "word"
    assert reason_of(lambda: open_group_message(delta, keys)) is Reason.BAD_PAYLOAD


def test_stored_group_keys_round_trip_and_show_no_key() -> None:
    alice = make_peer(1)
    keys = GroupKeys(GROUP, (_key(1, alice), _key(2, alice)))
    assert GroupKeys.decode(keys.encode()) == keys
    assert reason_of(lambda: GroupKeys.decode(keys.encode()[:-1])) is Reason.MALFORMED
    assert repr(keys.versions[0].key)[2:-1] not in repr(keys)
