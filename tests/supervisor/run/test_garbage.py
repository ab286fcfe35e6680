"""A message is gone when it has been dealt with: no cycle of objects keeps it until cycles are looked for, which is seldom."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.transport.wire import RedisFailed
from supervisor.inbound.incoming import Incoming
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import message_frame

LONG_CHARS = 20_000


@contextmanager
def nobody_looks_for_cycles() -> Iterator[None]:
    """Whatever is freed meanwhile is freed by its last user."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_messages_that_cannot_be_read_are_gone_when_they_stand_in_quarantine(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("hello"))
        with nobody_looks_for_cycles():
            for seq in range(2, 22, 2):
                await core.client.command("DEL", core.keys.session(ada.user_id, ada.device.device_id))
                said = ada.say("x" * LONG_CHARS, seq=seq)
                await core.polled(said)
                assert await core.quarantined(said) == "unknown_prekey"
                await core.polled(message_frame("A" * LONG_CHARS, seq=seq + 1))
            assert [found for found in gc.get_objects() if isinstance(found, Incoming)] == []


async def test_a_command_that_failed_is_gone_with_its_error(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        with nobody_looks_for_cycles():
            before = failures()
            for _ in range(5):
                with pytest.raises(RedisFailed):
                    await core.client.command("NOSUCHCOMMAND", b"x" * LONG_CHARS)
            assert [found for found in failures() if found not in before] == []


def failures() -> list[object]:
    """Every error of Redis that is somewhere in this process; other tests have left some."""
    return [found for found in gc.get_objects() if isinstance(found, RedisFailed)]
