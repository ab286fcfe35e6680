"""The keeper with real processes: what dies when, what is started again, and that nothing is left behind."""

import os
import signal
import socket
from pathlib import Path

import pytest
import redis
import trio

from tests.supervisor.keeper.running import Running, is_alive, open_files, proc, running_keeper
from tests.supervisor.settings.environment import SECRETS
from tests.waiting import waiting_for


def client(keeper: Running) -> redis.Redis:
    return redis.Redis.from_url(keeper.lines("redis_url")[-1], protocol=2, decode_responses=True)


async def test_term_drains_the_supervisor_before_redis_ends_and_leaves_nothing(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        assert await keeper.end() == 0
        assert keeper.lines("drained") == [str(keeper.supervisor_pids[0])]
        assert not any(is_alive(pid) for pid in (*keeper.supervisor_pids, *keeper.redis_pids()))
        assert "bye bye" in (keeper.state_dir / "redis" / "redis.log").read_text(encoding="utf-8")


async def test_a_killed_supervisor_is_started_again_on_the_same_redis(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        for life in range(2, 5):
            os.kill(keeper.supervisor_pids[-1], signal.SIGKILL)
            await keeper.until_ready(lives=life)
        assert len(set(keeper.supervisor_pids)) == 4
        assert len(set(keeper.lines("port"))) == 1
        assert len(keeper.redis_pids()) == 1
        assert await keeper.end() == 0


async def test_a_killed_redis_is_started_again_on_the_same_files_and_the_supervisor_lives(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        with client(keeper) as before:
            for number in range(200):
                before.set(f"key{number}", "written")
        os.kill(keeper.redis_pids()[0], signal.SIGKILL)
        await keeper.until(lambda: len(keeper.redis_pids()) == 2)
        with client(keeper) as after:
            assert after.dbsize() == 200
        assert len(keeper.supervisor_pids) == 1
        assert await keeper.end() == 0


async def test_nothing_survives_a_killed_keeper_and_the_next_one_starts_at_once(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        children = (*keeper.supervisor_pids, *keeper.redis_pids())
        keeper.process.kill()
        await keeper.until(lambda: not any(is_alive(pid) for pid in children))
    async with running_keeper(tmp_path, name="next") as successor:
        await successor.until_ready()
        assert await successor.end() == 0


async def test_the_supervisor_outlives_ten_idle_seconds_of_its_keeper(tmp_path: Path) -> None:
    # The parent-death signal is tied to the thread that forked: one of trio's ends after 10 idle seconds.
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        started = trio.current_time()
        await keeper.until(lambda: trio.current_time() > started + 11)
        assert all(is_alive(pid) for pid in (*keeper.supervisor_pids, *keeper.redis_pids()))
        assert len(keeper.supervisor_pids) == 1


async def test_a_second_keeper_on_one_state_directory_says_so(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        async with running_keeper(tmp_path, name="second") as second:
            assert await second.status() == 1  # the stub shows the traceback; the command line makes 78 of it
            assert f"another hashee-agent (pid {keeper.process.pid}) is running" in second.log
        assert is_alive(keeper.redis_pids()[0])


async def test_a_store_that_cannot_be_loaded_ends_with_78_and_names_its_file(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        assert await keeper.end() == 0
        (base,) = keeper.state_dir.rglob("*.base.aof")
    base.write_bytes(damaged := b"no commands\r\n")
    async with running_keeper(tmp_path, name="second") as second:
        assert await second.status() == 78
        assert f"{base} is damaged; bring a backup back" in second.log
    assert base.read_bytes() == damaged


async def test_redis_holds_the_lock_as_long_as_it_lives(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        lock = (keeper.state_dir / "lock").stat()
        assert (lock.st_dev, lock.st_ino) in open_files(keeper.redis_pids()[0])


async def test_a_port_in_use_names_the_setting_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running_keeper(tmp_path, HASHEE_HTTP_PORT=str(port)) as keeper:
            assert await keeper.status() == 1
            assert f"HASHEE_HTTP_PORT cannot be used: expected a free port ({port} is in use)" in keeper.log
            assert keeper.redis_pids() == []


async def test_a_refused_configuration_ends_the_keeper_with_78_if_none_was_ever_ready(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"exit": 78}) as keeper:
        assert await keeper.status() == 78
        assert len(keeper.supervisor_pids) == 1


async def test_a_refused_configuration_after_a_ready_one_is_tried_again(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"exit_after_ready": 78}) as keeper:
        await keeper.until_ready(lives=3)
        await keeper.end()


async def test_a_crashing_supervisor_is_tried_again_and_the_keeper_can_be_ended_between(tmp_path: Path) -> None:
    slow = {"backoff_base": 60.0, "backoff_cap": 120.0}
    async with running_keeper(tmp_path, plan={"exit": 3, "timings": slow}) as keeper:
        await keeper.until(lambda: "started again" in keeper.log)
        assert await keeper.end() == 0


async def test_a_drain_that_takes_too_long_is_cut(tmp_path: Path) -> None:
    plan: dict[str, object] = {"ignore_drain": True, "timings": {"drain_margin": 0.2}}
    async with running_keeper(tmp_path, plan=plan, HASHEE_DRAIN_SECONDS="0") as keeper:
        await keeper.until_ready()
        assert await keeper.end() == 1
        assert "the drain took too long" in keeper.log
        assert not is_alive(keeper.redis_pids()[0])


async def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"ignore_drain": True}) as keeper:
        await keeper.until_ready()
        keeper.process.send_signal(signal.SIGINT)
        await keeper.until(lambda: "draining" in keeper.log)
        assert await keeper.end(signal.SIGINT) == 128 + signal.SIGINT
        assert not any(is_alive(pid) for pid in (*keeper.supervisor_pids, *keeper.redis_pids()))


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT, signal.SIGHUP])
async def test_signals_for_the_supervisor_are_forwarded(tmp_path: Path, number: signal.Signals) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        await keeper.until(lambda: keeper.supervisor_pids)
        keeper.process.send_signal(number)
        await keeper.until(lambda: keeper.lines("signal") == [number.name])
        assert await keeper.end() == 0


async def test_a_given_redis_means_no_private_one(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, HASHEE_REDIS_URL="redis://127.0.0.1:1") as keeper:
        await keeper.until(lambda: keeper.supervisor_pids)
        assert keeper.lines("redis_url") == ["None"]
        assert await keeper.end() == 0
        assert keeper.redis_pids() == []


async def test_redis_gets_no_secret_in_its_environment_and_a_process_group_of_its_own(tmp_path: Path) -> None:
    async with running_keeper(tmp_path) as keeper:
        await keeper.until_ready()
        (pid,) = keeper.redis_pids()
        assert not any(secret in proc(pid, "environ") for secret in SECRETS)
        assert os.getpgid(pid) == pid
        assert os.getpgid(keeper.supervisor_pids[0]) == keeper.supervisor_pids[0]


async def test_systemd_is_told_ready_and_stopping_by_the_keeper(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.setblocking(False)
        async with running_keeper(tmp_path, NOTIFY_SOCKET=str(address)) as keeper:
            told = ""
            with waiting_for("systemd to be told that the supervisor is ready", 15):
                while "READY=1\nSTATUS=ready: stub" not in told:
                    await trio.lowlevel.wait_readable(listener)
                    told += listener.recv(4096).decode() + "\n"
            assert "NOTIFY_SOCKET" not in proc(keeper.supervisor_pids[0], "environ")
            assert await keeper.end() == 0
            while "STOPPING=1" not in told:
                told = listener.recv(4096).decode()  # all was sent: BlockingIOError if it is not among it
            assert told.startswith("STOPPING=1\nEXTEND_TIMEOUT_USEC=")


async def test_systemds_watchdog_hears_the_keeper_again_and_again(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.setblocking(False)
        async with running_keeper(tmp_path, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="300000"):
            heard = 0
            with waiting_for("five signs of life for systemd's watchdog", 15):
                while heard < 5:
                    await trio.lowlevel.wait_readable(listener)
                    heard += listener.recv(4096) == b"WATCHDOG=1"


async def test_strangers_that_end_are_reaped_and_our_own_children_keep_their_status(tmp_path: Path) -> None:
    async with running_keeper(tmp_path, plan={"orphan": True}) as keeper:
        await keeper.until_ready()
        await keeper.until(lambda: keeper.lines("orphan"))
        (orphan,) = keeper.lines("orphan")
        await keeper.until(lambda: not Path("/proc", orphan).exists())
        os.kill(keeper.supervisor_pids[-1], signal.SIGKILL)
        await keeper.until(lambda: '"status": -9' in keeper.log)
        assert await keeper.end() == 0
