"""The manifest is registered once, however long the relay is away; where it breaks with the one before the log warns."""

import copy
from typing import Any

import msgspec
import pytest
import structlog.testing
import trio.testing

from supervisor.relay.rest import NOT_JSON, RestFailed
from supervisor.run.announcing import announce
from supervisor.settings.manifest import Manifest
from tests.supervisor.settings.test_manifest import GOOD
from tests.waiting import waiting_for

WITHIN_SECONDS = 60


class Relay:
    """What it has of the agent, and what it answers first."""

    def __init__(self, has: dict[str, Any], *failures: RestFailed) -> None:
        self.has, self.failures, self.set = has, list(failures), 0

    async def manifest(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        return self.has

    async def set_manifest(self, manifest: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.has, self.set = manifest, self.set + 1


def manifest(**other: Any) -> Manifest:
    return msgspec.convert({**copy.deepcopy(GOOD), **other}, Manifest)


async def announced(relay: Relay, mine: Manifest) -> list[str]:
    with structlog.testing.capture_logs() as lines, waiting_for("the manifest to be registered", WITHIN_SECONDS):
        await announce(relay, mine)
    return [f"{line['event']} {line.get('breaks', '')}".strip() for line in lines if line["log_level"] != "info"]


async def test_it_is_registered_and_a_second_start_has_nothing_to_do() -> None:
    relay = Relay({})
    for _ in range(2):
        assert await announced(relay, manifest()) == []
    assert relay.has == manifest().as_json()
    assert relay.set == 1


async def test_a_relay_that_is_away_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    statuses = {0: "gone", 503: "busy", 429: "slow", 200: NOT_JSON}
    relay = Relay({}, *(RestFailed("GET", status, code) for status, code in statuses.items()))
    assert await announced(relay, manifest()) == []
    assert relay.set == 1


async def test_a_relay_that_refuses_it_is_asked_once() -> None:
    relay = Relay({}, RestFailed("GET", 422, "INVALID"))
    [line] = await announced(relay, manifest())
    assert "refuses" in line
    assert relay.set == 0


@pytest.mark.parametrize(("version", "warns"), [("1.5.0", True), ("2.0.0", False)])
async def test_one_that_breaks_is_warned_of_unless_its_version_says_so(version: str, warns: bool) -> None:
    relay = Relay(manifest().as_json())
    lines = await announced(relay, manifest(agent_version=version, tools=[]))
    assert [("the tool free_slots is gone" in line) for line in lines] == [True] * warns
    assert relay.set == 1
