"""Workers that die: what is told, what is shown and what is not, what goes on, and what they leave behind."""

import os
import signal
from pathlib import Path

import pytest

from supervisor.pool.crash_loop import CrashLoop, CrashLoopLimits, Death
from supervisor.pool.process import ExitReason
from tests.bus.builders import open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import WITHIN_SECONDS, ask, is_gone, order_of, running_pool, text_answer, until
from tests.waiting import waiting_for

SECRET = "what-a-person-wrote"
KILLS = 200


async def test_the_job_of_a_worker_that_exits_under_it_goes_on_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), bus=bus) as run:
            await ask(bus, f"exit_once 7 {tmp_path / 'first'}")
            assert await text_answer(bus) == "re: exit_once"
            [exited] = run.exits
            assert (exited.returncode, exited.reason, exited.abnormal) == (7, ExitReason.CRASHED, True)
            assert [job.job_id for job in exited.running] in ([], ["conversation-1"])  # its last heartbeat may be older
            assert run.restarts == ["crashed"]


async def test_a_crash_is_logged_by_type_and_place_and_its_text_is_shown_to_the_owner_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url)) as run:
            await ask(bus, f"interrupt {SECRET}")
            await until(lambda: run.exits)
            died = run.lines.of("worker: died")
            assert (died["status"], died["exception"]) == (70, "KeyboardInterrupt")
            assert str(died["at"]).startswith("handlers.py:")
            assert SECRET in "\n".join(run.pool.last_words)
    assert SECRET not in str(run.lines.entries)
    assert SECRET not in "".join(capfd.readouterr())


async def test_a_crash_in_c_shows_its_signal_and_where_python_stood(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url)) as run:
            await ask(bus, "segfault")
            await until(lambda: run.exits)
            died = run.lines.of("worker: died")
            assert (died["status"], died["exception"]) == (-signal.SIGSEGV, "SIGSEGV")
            assert "py:" in str(died["at"])
            assert run.exits[0].abnormal


async def test_an_exception_in_a_thread_of_the_owner_ends_nothing_and_its_text_stays_out_of_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url)) as run:
            await ask(bus, f"thread {SECRET}")
            assert await text_answer(bus) == "started"
            [life] = run.pool.roster.lives
            await until(lambda: SECRET in "\n".join(life.process.last_words.shown()))
            shown = ""

            def is_logged() -> bool:
                nonlocal shown
                shown += "".join(capfd.readouterr())
                return "a thread ended" in shown

            await until(is_logged)
            assert run.exits == []
    shown += "".join(capfd.readouterr())
    assert "ValueError" in shown
    assert SECRET not in shown


@pytest.mark.parametrize("command", ["grandchild", "daemon"])
async def test_a_fork_bombs_child_left_behind_ends_with_its_worker_even_in_a_session_of_its_own(
    tmp_path: Path, command: str
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url)) as run:
            await ask(bus, command)
            grandchild = int(await text_answer(bus))
            assert not is_gone(grandchild)
            os.kill(run.pids()[0], signal.SIGKILL)
            await until(lambda: run.exits)
            await until(lambda: not Path(f"/proc/{grandchild}").exists())  # reaped, too


async def test_what_a_handler_forks_never_goes_on_as_the_worker_and_is_ended_by_its_signals(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether it returns, raises, waits in the event loop or speaks: two processes would take each other's answers of one connection."""
    expected = {
        "fork returns": "returns: 0",
        "fork raises": "raises: 1",
        "fork says": "says: 0",
        "fork in a thread": "thread: 1",
        "terminate": f"ended by signal [{signal.SIGTERM.value}]",
        "hello": "re: hello",
    }
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url)) as run:
            for number, (said, answer) in enumerate(expected.items()):
                await ask(bus, said, conversation=f"conversation {number}")
                assert await text_answer(bus) == answer
            assert run.exits == []
    shown = "".join(capfd.readouterr())
    assert shown.count("forked came back from it, and is ended") == 3
    assert shown.count("forked waits in the event loop, and is ended") == 1
    assert '"exception": "LookupError", "at": "handlers.py' in shown
    assert '"exception": "ChatClosed", "at": "handlers.py' in shown


async def test_five_deaths_in_a_minute_are_a_crash_loop_and_the_healthy_worker_goes_on(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_pool(order_of(url), 2, backoff_last_seconds=600) as run:
            for death in range(1, 6):
                with waiting_for(f"the workers to be ready after death {death - 1}", WITHIN_SECONDS):
                    await run.pool.wait_until_ready(2)
                await ask(bus, "exit 3", seq=1, conversation=f"conversation {death}")
                await until(lambda death=death: len(run.exits) == death)  # type: ignore[misc]  # binds the loop's value
            loop = run.pool.crash_loop
            assert loop is not None
            assert (loop.deaths, loop.last.status, loop.last.reason) == (5, 3, "crashed")
            assert "status 3" in str(run.lines.of("workers: crash loop, started again slowly from now on")["why"])
            await ask(bus, "hello", conversation="another")
            assert await text_answer(bus) == "re: hello"
            assert run.pool.ready == 1  # the other place waits long
            run.pool.scale(run.pool.bounds.moved(-1))
            assert len(run.pool.roster.places) == 1
            assert run.pool.ready == 1  # the place that waited is the one that was given up
            with waiting_for("the drain in a crash loop", WITHIN_SECONDS):
                await run.pool.drain()


async def test_a_crash_loop_is_over_when_new_code_is_there(tmp_path: Path) -> None:
    limits = CrashLoopLimits(deaths=2)
    with redis_server(tmp_path) as url:
        order = order_of(url)
        async with running_pool(order, backoff_last_seconds=600, crash_loop=limits) as run:
            for death in (1, 2):
                with waiting_for(f"the worker to be ready after death {death - 1}", WITHIN_SECONDS):
                    await run.pool.wait_until_ready()
                os.kill(run.pids()[0], signal.SIGKILL)
                await until(lambda death=death: len(run.exits) == death)  # type: ignore[misc]  # binds the loop's value
            assert run.pool.crash_loop is not None
            assert run.pool.ready == 0
            with waiting_for("the reload in a crash loop", WITHIN_SECONDS):
                assert await run.pool.reload(order) is None
            assert run.pool.crash_loop is None
            assert run.pool.ready == 1


@pytest.mark.long
async def test_two_hundred_kills_of_an_idle_worker_in_a_row_are_two_hundred_restarts(tmp_path: Path) -> None:
    never = CrashLoopLimits(deaths=0)
    with redis_server(tmp_path) as url:
        async with (
            open_bus(url) as bus,
            running_pool(order_of(url), backoff_last_seconds=0.01, crash_loop=never) as run,
        ):
            for kills in range(1, KILLS + 1):
                if kills % 20 == 0:  # the others are killed on their way, at every point of it
                    with waiting_for(f"the worker to be ready after kill {kills - 1}", WITHIN_SECONDS):
                        await run.pool.wait_until_ready()
                await until(run.pids)
                os.kill(run.pids()[0], signal.SIGKILL)
                await until(lambda kills=kills: len(run.exits) == kills)  # type: ignore[misc]  # binds the loop's value
            await ask(bus, "hello")
            assert await text_answer(bus) == "re: hello"
            assert len({exited.consumer for exited in run.exits}) == KILLS
            assert len(run.restarts) == KILLS
            assert all(is_gone(exited.pid) for exited in run.exits)


@pytest.mark.pure
def test_deaths_far_apart_are_no_crash_loop_and_quiet_ends_one() -> None:
    death = Death(1, "crashed", "", "")
    loop = CrashLoop(CrashLoopLimits(deaths=3, window_seconds=60, quiet_seconds=60))
    assert [loop.note(at, death) for at in (0, 50, 100, 150)] == [False] * 4
    assert loop.status(150) is None
    assert [loop.note(at, death) for at in (160, 170, 180)] == [True, False, False]
    status = loop.status(200)
    assert status is not None
    assert (status.since_seconds, status.deaths) == (40, 5)
    assert loop.status(241) is None
    assert [loop.note(at, death) for at in (242, 243)] == [False, False]
