"""What the drills' search for forks must not overlook."""

import copy
import os
from contextlib import closing
from pathlib import Path

from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import bundle_from_json
from sandbox.device_state import DeviceState
from sandbox.relay.records import Message
from sandbox.relay.storage import SqliteStorage
from sandbox.ulid import new_ulid
from tests.trials.drills.forks import forks, stored


def talking() -> DeviceState:
    """A device with a session that it has begun."""
    one, other = (DeviceState(LocalDevice(name, name, IdentityKeys.generate(os.urandom))) for name in ("one", "other"))
    entry = other.registration(1)
    prekeys = entry.pop("one_time_prekeys")
    assert isinstance(prekeys, list)
    one.start_session(bundle_from_json({**entry, "owner_id": "other", "one_time_prekey": prekeys[0]}, "other"))
    return one


def said(device: DeviceState, text: str) -> str:
    return device.seal("other", ["other"], "conversation", new_ulid(), {"type": "text", "text": text})


def test_each_message_has_a_place_of_its_own() -> None:
    device = talking()
    assert forks([said(device, "one"), said(device, "two"), said(talking(), "three")]) == []


def test_the_same_bytes_sent_again_are_no_fork() -> None:
    envelope = said(talking(), "one")
    assert forks([envelope, envelope]) == []


def test_an_older_state_that_is_sent_with_is_a_fork() -> None:
    device = talking()
    first = said(device, "one")
    older = copy.deepcopy(device)
    envelopes = [first, said(device, "two"), said(older, "in other words"), said(older, "and more")]
    assert len(forks(envelopes)) == 1


def test_what_the_relay_stored_is_read_as_it_stored_it(tmp_path: Path) -> None:
    messages = [
        Message(f"m{seq}", "c", "h2a", seq, "a", "agent", "a", "", f"id{seq}", "text", f"envelope {seq}", "now")
        for seq in (1, 2)
    ]
    with closing(SqliteStorage(tmp_path / "relay.db")) as storage:
        for message in messages:
            storage.save(message.message_id, message)
        assert stored(tmp_path / "relay.db") == messages
