"""One small rollout of each kind, so that a break is seen at once; the figures of the whole come from `make rollout`."""

from pathlib import Path

import msgspec
import pytest

from tests.trials.rollout.promises import what_is_bad
from tests.trials.rollout.run import Order, run
from tests.waiting import waiting_for

SMALL = Order(strategy="upgrade", messages=40, people=10, rate=8.0, rollouts=1, trouble="", seed=1)
"""The whole suite's other tests may run beside it: what is asserted is what holds on a busy machine too."""

TOO_LONG_SECONDS = 150.0


async def roll(order: Order, directory: Path) -> None:
    with waiting_for("the rollout to end", TOO_LONG_SECONDS):
        outcome = await run(order, directory)
    assert outcome.sent >= order.messages
    assert what_is_bad(outcome, msgspec.structs.replace(order, trouble="a busy machine")) == []
    if order.max_connections > 1:
        assert outcome.figures.connectionless_ms == 0


@pytest.mark.long
async def test_an_upgrade_under_traffic_is_never_without_a_connection(tmp_path: Path) -> None:
    await roll(SMALL, tmp_path)


@pytest.mark.long
async def test_a_second_slot_takes_over_with_one_connection_allowed(tmp_path: Path) -> None:
    await roll(msgspec.structs.replace(SMALL, strategy="systemd", max_connections=1), tmp_path)
