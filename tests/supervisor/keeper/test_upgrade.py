"""Generations under a real keeper: the new one serves before the old one leaves, and whatever goes wrong the old one goes on."""

import os
import signal
from pathlib import Path
from typing import Any

import trio

from tests.supervisor.control.test_control_socket import ask, socket_of
from tests.supervisor.keeper.running import Running, is_alive, running_keeper


async def upgrade(keeper: Running, *, wait: bool = True) -> dict[str, Any]:
    [answer] = await ask(socket_of(keeper), {"command": "upgrade", "wait": wait})
    return answer


async def the_second_lives(keeper: Running) -> None:
    await keeper.until(lambda: len(keeper.supervisor_pids) == 2)


async def test_usr2_starts_a_new_generation_and_the_old_one_retires(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        await keeper.until(lambda: "connected" in keeper.log or keeper.supervisor_pids)
        keeper.process.send_signal(signal.SIGUSR2)
        await keeper.until(lambda: '"keeper: upgraded"' in keeper.log)
        old, new = keeper.supervisor_pids
        assert keeper.lines("drained") == [str(old)]
        assert keeper.lines("retired") == ["True"]
        assert (is_alive(old), is_alive(new)) == (False, True)
        assert len(keeper.redis_pids()) == 1
        [status] = await ask(socket_of(keeper), {"command": "status"})
        assert status["result"]["supervisor"] == {"pid": new}
        assert status["result"]["keeper"]["upgrade"] == "upgraded"
        assert await keeper.end() == 0
        assert keeper.lines("retired") == ["True", "False"], "a stop is no upgrade"


async def test_one_upgrade_after_the_other(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        for _ in range(3):
            assert (await upgrade(keeper))["ok"]
        assert [is_alive(pid) for pid in keeper.supervisor_pids] == [False, False, False, True]


async def test_a_new_generation_that_crashes_at_its_start_changes_nothing(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"second": {"exit": 78}}) as keeper:
        await keeper.until_ready()
        answer = await upgrade(keeper)
        assert answer == {"ok": False, "error": "not upgraded: the new one ended with status 78; its log says why"}
        assert is_alive(keeper.supervisor_pids[0])
        assert keeper.lines("told_to_drain") == []
        assert "the old generation goes on" in keeper.log


async def test_a_new_generation_that_does_not_serve_in_time_is_ended(tmp_path: Path) -> None:
    plan: dict[str, object] = {"second": {"never_ready": True}, "timings": {"upgrade": 0.5}}
    async with running_keeper(tmp_path, plan=plan) as keeper:
        await keeper.until_ready()
        answer = await upgrade(keeper)
        assert answer["error"].startswith("not upgraded: the new one did not serve within")
        old, *new = keeper.supervisor_pids  # on a busy machine the new one was ended before it could say anything
        assert is_alive(old)
        assert not any(is_alive(pid) for pid in new)


async def test_a_second_upgrade_at_the_same_time_is_refused(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"second": {"never_ready": True}}) as keeper:
        await keeper.until_ready()
        assert (await upgrade(keeper, wait=False))["ok"]
        assert "an upgrade is under way" in (await upgrade(keeper))["error"]
        await the_second_lives(keeper)
        assert len(keeper.supervisor_pids) == 2


async def test_an_old_generation_that_dies_meanwhile_leaves_the_new_one_in_charge(tmp_path: Path) -> None:
    plan: dict[str, object] = {"second": {"never_ready": True}, "timings": {"upgrade": 5.0, "backoff_base": 60.0}}
    async with running_keeper(tmp_path, plan=plan) as keeper:
        await keeper.until_ready()
        assert (await upgrade(keeper, wait=False))["ok"]
        await the_second_lives(keeper)
        os.kill(keeper.supervisor_pids[0], signal.SIGKILL)
        await keeper.until(lambda: "died during an upgrade" in keeper.log)
        await keeper.until(lambda: "upgrade failed" in keeper.log)  # it never serves: it is ended, and started again
        await keeper.until(lambda: "it is started again" in keeper.log)


async def test_a_stop_in_the_middle_of_an_upgrade_ends_both(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"second": {"never_ready": True}}) as keeper:
        await keeper.until_ready()
        assert (await upgrade(keeper, wait=False))["ok"]
        await the_second_lives(keeper)
        assert await keeper.end() == 0
        assert not any(is_alive(pid) for pid in keeper.supervisor_pids)


async def test_an_old_generation_that_does_not_leave_is_ended(tmp_path: Path) -> None:
    plan: dict[str, object] = {
        "ignore_drain": True,
        "second": {"ignore_drain": False},
        "timings": {"drain_margin": 0.2},
    }
    async with running_keeper(tmp_path, plan=plan, HASHEE_DRAIN_SECONDS="0") as keeper:
        await keeper.until_ready()
        assert (await upgrade(keeper))["ok"]
        assert [is_alive(pid) for pid in keeper.supervisor_pids] == [False, True]
        assert "took too long to leave" in keeper.log


async def test_an_old_generation_killed_while_it_leaves_is_not_started_again(tmp_path: Path) -> None:
    plan: dict[str, object] = {"ignore_drain": True, "second": {"ignore_drain": False}}
    async with running_keeper(tmp_path, plan=plan) as keeper:
        await keeper.until_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upgrade, keeper)
            await keeper.until(lambda: keeper.lines("told_to_drain"))
            os.kill(keeper.supervisor_pids[0], signal.SIGKILL)
        assert [is_alive(pid) for pid in keeper.supervisor_pids] == [False, True]
        assert "the old generation ended with status -9" in keeper.log
