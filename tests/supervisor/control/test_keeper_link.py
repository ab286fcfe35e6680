"""The line between keeper and supervisor, and the backoff: what is understood, what is passed over, what ends it."""

import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.control.messages import ControlAnswer, Request
from host.children import RestartBackoff
from host.lines import LineReader
from supervisor.control.keeper_link import (
    FromSupervisor,
    KeeperLink,
    NumberedAnswer,
    ReportedState,
    encode,
    from_supervisor,
    open_keeper_link,
    question_line,
)
from supervisor.run.supervisor_control import SupervisorControl
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure


@dataclass
class Ends:
    link: KeeperLink
    keeper: trio.SocketStream
    keeper_gone: trio.Event


@asynccontextmanager
async def both_ends() -> AsyncGenerator[Ends]:
    ours, theirs = socket.socketpair()
    keeper = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    gone = trio.Event()
    with waiting_for("what the test does while the keeper's link is open", 5):
        async with keeper, open_keeper_link(theirs, None, "unix:///r.sock", gone.set) as link:
            yield Ends(link, keeper, gone)


async def test_a_drain_is_heard_even_if_it_comes_in_pieces() -> None:
    async with both_ends() as ends:
        await ends.keeper.send_all(b"dra")
        await trio.testing.wait_all_tasks_blocked()
        await ends.keeper.send_all(b"in\n")
        await ends.link.wait_for_drain()


async def test_signals_arrive_in_order_and_unknown_lines_are_passed_over() -> None:
    async with both_ends() as ends:
        with capture_logs() as logs:
            await ends.keeper.send_all(b"signal SIGTTIN\nsignal SIGKILL\ndance\nsignal SIGTTOU\n")
            assert await ends.link.next_signal() is signal.SIGTTIN
            assert await ends.link.next_signal() is signal.SIGTTOU
        assert [(line["event"], line["tag"]) for line in logs] == [
            ("keeper: a line was passed over, not known here", tag) for tag in ("signal", "dance")
        ]


async def test_signals_that_nobody_asks_for_do_not_hold_up_the_drain() -> None:
    async with both_ends() as ends:
        with capture_logs():
            await ends.keeper.send_all(b"signal SIGTTIN\n" * 50 + b"drain\n")
            await ends.link.wait_for_drain()


async def test_the_end_of_the_line_means_that_the_keeper_is_gone() -> None:
    async with both_ends() as ends:
        await ends.keeper.aclose()
        await ends.keeper_gone.wait()
        with capture_logs() as logs:
            await ends.link.report("ready")
            await ends.link.report("ready")
        assert logs[-1]["event"] == "keeper: is gone"


async def test_what_the_supervisor_reports_reaches_the_keeper_whole() -> None:
    async with both_ends() as ends:
        await ends.link.ready("2 workers")
        await ends.link.report("connected")
        lines = LineReader(from_supervisor, pytest.fail)
        heard: list[FromSupervisor] = []
        while len(heard) < 2:
            heard += lines.feed(bytes(await ends.keeper.receive_some()))
    assert heard == [ReportedState("ready", "2 workers"), ReportedState("connected")]


async def test_a_defect_that_a_command_meets_is_its_answer_and_no_end_of_the_supervisor() -> None:
    async def broken(_request: Request) -> ControlAnswer:
        raise KeyError("what somebody has said")

    async with both_ends() as ends, trio.open_nursery() as nursery:
        nursery.start_soon(SupervisorControl({"broken": broken}).answer_keeper, ends.link)
        lines = LineReader(from_supervisor, pytest.fail)
        with capture_logs() as logs:
            for number, (command, told) in enumerate(
                [("broken", "a defect of hashee-agent"), ("what", "no such command")]
            ):
                await ends.keeper.send_all(question_line(number, Request(command)).encode() + b"\n")
                heard = list[FromSupervisor]()
                while not heard:
                    heard += lines.feed(bytes(await ends.keeper.receive_some()))
                [answered] = heard
                assert isinstance(answered, NumberedAnswer)
                assert answered.number == number
                assert told in msgspec.json.decode(answered.answer, type=ControlAnswer).error
        assert [(line["log_level"], line["command"]) for line in logs] == [("error", "broken")]
        nursery.cancel_scope.cancel()


def test_a_state_is_one_line_whatever_its_detail_says() -> None:
    assert encode(ReportedState("ready", "two\nlines")).count(b"\n") == 1


def test_the_backoff_doubles_up_to_its_cap_with_full_jitter_and_forgets_after_good_health() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    backoff = RestartBackoff(uniform=draw)
    waits = [backoff.after_death(lived_seconds=59.9) for _ in range(8)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert {low for low, _ in drawn} == {0.0}
    assert backoff.after_death(lived_seconds=60.0) == 0.5


def test_a_thousand_deaths_are_still_a_number_of_seconds() -> None:
    backoff = RestartBackoff()
    assert all(0.0 <= backoff.after_death(0.0) <= 30.0 for _ in range(1100))
