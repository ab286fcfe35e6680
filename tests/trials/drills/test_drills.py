"""What the drills' search for forks must not overlook, and that the clocks they turn are all clocks."""

import copy
import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis

from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import bundle_from_json
from host import embedded
from sandbox.device_state import DeviceState
from sandbox.relay.records import Message
from sandbox.relay.storage import SqliteStorage
from sandbox.ulid import new_ulid
from tests.trials.drills.forks import forks, stored
from tests.trials.drills.other_time import OtherTime
from tests.trials.drills.worse import HOUR
from tests.waiting import waiting_for


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


async def test_another_time_is_that_of_the_private_redis_too(tmp_path: Path) -> None:
    """The keeper hands on no LD_PRELOAD, and for a while the drills turned every clock but this one."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, so that no clock can be turned")
    clock = OtherTime(tmp_path)
    layout = embedded.prepare(tmp_path / "state", tmp_path / "runtime")
    process = embedded.start(embedded.find_server(clock.settings["PATH"]), layout, "second", lock_fd=None)
    try:
        with waiting_for("Redis to be ready", 10):
            await embedded.wait_ready(layout)
        clock.change(wall_seconds=HOUR)
        with closing(redis.Redis(unix_socket_path=str(layout.socket_path), protocol=2)) as client:
            assert abs(client.time()[0] - time.time() - HOUR) < 60
    finally:
        process.kill()
        process.wait()
