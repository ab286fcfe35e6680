"""Prekeys out of a backup: what people began with them is read, each one-time prekey once, and they are offered to nobody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from bus.records.saved import Value
from bus.steps.store import Intake
from bus.whole.restoring import Restoring
from bus.whole.snapshot import Snapshot
from crypto.identity import LocalDevice
from supervisor.peers.prekeys import OwnPrekeys
from tests.supervisor.builders import IDENTITY, KEYS, Core
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import AGENT, Person


@asynccontextmanager
async def restored(tmp_path: Path) -> AsyncIterator[tuple[Core, Person]]:
    """What was published stands in a backup; the prekeys of the store itself are gone."""
    async with scene(tmp_path) as (core, ada):
        [signed, one_time] = [
            saved
            async for saved in Snapshot(core.client, core.keys).everything()
            if isinstance(saved, Value) and saved.kind in ("signed_prekeys", "one_time_prekeys")
        ]
        await core.client.command("DEL", core.keys.signed_prekeys, core.keys.one_time_prekeys, core.keys.prekey_state)
        restoring = Restoring(core.client, core.keys, KEYS.state, place=core.keys.of)
        for saved in (signed, one_time):
            await restoring.take(saved)
        await restoring.finish()
        await core.client.command("DEL", core.keys.epoch)
        yield core, ada


async def left(core: Core) -> int:
    return cast(int, await core.client.command("HLEN", core.keys.restored_one_time_prekeys))


async def test_a_first_message_that_was_on_its_way_is_read_and_its_prekey_erased(tmp_path: Path) -> None:
    async with restored(tmp_path) as (core, ada):
        first = ada.say()
        assert await left(core) == 100
        await core.push(first)
        assert len(await core.jobs()) == 1
        assert await left(core) == 99
        assert await core.polled(first) is Intake.DUPLICATE
        assert (await core.prekeys.find(1, None)).was_before_a_loss(1), (
            "so it is not answered in: it may have been before"
        )


async def test_content_of_no_use_erases_it_too(tmp_path: Path) -> None:
    async with restored(tmp_path) as (core, ada):
        useless = ada.say(payload={"type": "delta", "text": "outside of a stream"})
        await core.push(useless)
        assert await core.quarantined(useless) == "bad_payload"
        assert await left(core) == 99


async def test_new_ones_are_published_and_the_restored_are_not(tmp_path: Path) -> None:
    async with restored(tmp_path) as (core, _):
        before = len(core.rest.registered)
        await core.prekeys.publish()
        bodies = core.rest.registered[before:]
        offered = [entry["id"] for body in bodies for entry in cast("list[dict[str, int]]", body["one_time_prekeys"])]
        assert len(offered) == len(set(offered)) >= 100
        assert min(offered) > 1 << 19, "and the restored have the ids 1 to 100"
        assert cast("dict[str, int]", bodies[0]["signed_prekey"])["id"] > 1 << 19
        assert (await core.prekeys.find(1, 1)).is_restored
        assert (await core.prekeys.find(1, offered[0])).is_restored is False


async def test_a_dropped_session_of_a_restored_prekey_stays_remembered(tmp_path: Path) -> None:
    async with restored(tmp_path) as (core, _):
        kept: list[frozenset[int]] = []
        prekeys = OwnPrekeys(
            core.vault,
            core.keys.signed_prekeys,
            core.keys.one_time_prekeys,
            device=LocalDevice(AGENT, AGENT, IDENTITY),
            rest=core.rest,
            on_kept=kept.append,
            epoch=lambda: 0,
        )
        await prekeys.publish()
        assert 1 in kept[-1]
