"""When the whole agent holds, readiness is red with the reason, and green again by itself; what each kind takes is shown."""

from pathlib import Path

import msgspec
import pytest
import structlog

from bus.steps.store import InboundStore
from bus.views.overview import Counts, Overview
from supervisor.run.fullness import Fullness
from tests.supervisor.builders import Core
from tests.supervisor.inbound.test_held import let_nothing_wait, say
from tests.supervisor.inbound.test_inbound import scene

NOTHING = Counts(queued=0, running=0, waiting=0, due=0, unsent=0, unacknowledged=0, dead_letters=0, quarantined=0)


def fullness_of(core: Core, *, most_held: int = 10) -> Fullness:
    core.store.budgets = msgspec.structs.replace(core.store.budgets, most_held=most_held)
    return Fullness(core.store)


@pytest.mark.pure
def test_as_many_jobs_as_may_wait_are_red_with_the_setting_that_bounds_them_and_said_once_for_each_change() -> None:
    fullness = Fullness(InboundStore(None, "agent", "supervisor", most_waiting_in_all=100))  # type: ignore[arg-type]  # nothing is asked
    with structlog.testing.capture_logs() as lines:
        for jobs, is_ok in (
            (0, True),
            (99, True),
            (100, False),
            (95, False),
            (90, False),
            (89, True),
            (99, True),
            (100, False),
        ):
            fullness.consider(
                msgspec.structs.replace(NOTHING, waiting=max(0, jobs - 2), queued=min(jobs, 1), running=min(jobs, 1))
            )
            assert fullness.check().ok is is_ok, jobs
    assert "100 of 100 jobs wait for workers (HASHEE_MOST_WAITING)" in fullness.check().detail
    assert [line["log_level"] for line in lines] == ["error", "info", "error"]


async def test_when_all_notes_are_in_use_it_is_red_until_some_are_free(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        fullness, overview = fullness_of(core, most_held=2), Overview(core.client, core.keys)
        await say(core, ada, "runs", "waits")
        fullness.consider(await overview.counts())
        assert fullness.check().ok
        await say(core, ada, "waits", "waits")
        counts = await overview.counts()
        assert (counts.notes, counts.held_senders) == (2, 1)
        fullness.consider(counts)
        assert fullness.check().detail == "nothing is taken in: 2 of 2 notes of what waits at the relay"
        await core.client.command("DEL", core.keys.held)
        fullness.consider(await overview.counts())
        assert fullness.check().ok


async def test_the_bytes_of_each_kind_are_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        overview = Overview(core.client, core.keys)
        assert set((await overview.bytes_by_kind()).values()) == {0}
        await say(core, ada, "runs", "waits behind it")
        unread = msgspec.structs.replace(ada.say("x"), encrypted_payload="AAAA")
        await core.push(unread)
        let_nothing_wait(core)
        await say(core, ada, "waits at the relay")
        kinds = await overview.bytes_by_kind()
        assert kinds["waiting"] > 200
        assert kinds["notes"] > 100
        assert list(kinds) == ["waiting", "out", "quarantine", "unsigned", "dead", "notes"]
        assert await overview.kept_bytes() > kinds["waiting"]
