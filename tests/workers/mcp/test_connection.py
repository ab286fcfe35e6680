"""Connections to MCP servers that are real processes: what breaks costs its call alone, and what misbehaves is bounded, left, and named in the log."""

import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.waiting import waiting_for
from tests.workers.mcp.serving import PROGRAM, ROOT, serving, until_noted
from workers import MCP, OutcomeUnknown
from workers.errors import ToolError
from workers.tools.tool import Observe, Tool, ToolSource, observe_nothing

pytest.importorskip("mcp", reason="the extra mcp is not installed")

from workers.mcp.connection import PATIENCE_SECONDS
from workers.mcp.pace import MOST_AT_ONCE, MOST_PER_SECOND, Pace
from workers.mcp.server import FIRST_LIST_SECONDS

SECONDS = 30.0
PIPE_BYTES, LEAST_BYTES = 3 * 65_536, 60
"""What lies in the pipe, and what is read of it at once and lies in the server's own buffer; and of one message of the flood."""

HERE = Path(__file__).parent


class Lines(logging.Handler):
    """What was logged, with its values."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {getattr(record, 'values', {})}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("hashee.mcp"), Lines()
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.propagate = before


@asynccontextmanager
async def opened(
    tmp_path: Path, how: str, *, observe: Observe = observe_nothing, **settings: Any
) -> AsyncIterator[ToolSource]:
    """A hostile server's tools; `starts` in the folder has its pids."""
    server = MCP(
        sys.executable, str(HERE / "hostile.py"), how, name="it", env={"STARTS": str(tmp_path / "starts")}, **settings
    )
    async with server.opened(observe) as source:
        yield source


def alive(tmp_path: Path) -> list[int]:
    """Those servers that have not ended."""
    return [pid for pid in pids(tmp_path) if Path(f"/proc/{pid}").exists()]


def pids(tmp_path: Path) -> list[int]:
    starts = tmp_path / "starts"
    return [int(pid) for pid in starts.read_text(encoding="utf-8").split()] if starts.exists() else []


async def until_listed(source: ToolSource, count: int = 1) -> None:
    with waiting_for(f"{count} tools", SECONDS):
        while len(source.tools()) < count:
            await trio.sleep(0.01)


async def until_logged(logged: list[str], words: str) -> None:
    with waiting_for(f"the log to say {words!r}", SECONDS):
        while not any(words in line for line in logged):
            await trio.sleep(0.01)


def named(source: ToolSource, title: str) -> Tool:
    return next(tool for tool in source.tools() if tool.title == title)


async def call(source: ToolSource, title: str, **arguments: object) -> object:
    tool = named(source, title)
    return await tool.run(tool.check(arguments))


async def test_a_server_that_dies_in_mid_call_costs_that_call_and_is_there_again(
    tmp_path: Path, logged: list[str]
) -> None:
    seen = list[tuple[str, str, str]]()

    def observe(metric: str, _value: float, *, server: str, outcome: str) -> None:
        seen.append((metric, server, outcome))

    async with opened(tmp_path, "dies", observe=observe, allow={"search"}) as source:
        await until_listed(source)
        with pytest.raises(ToolError, match="lost during the call"):
            await call(source, "search")
        with pytest.raises(OutcomeUnknown):  # it is asked as soon as the server is there again, and may have been done
            await call(source, "delete")
        assert len(pids(tmp_path)) == 2
    assert any("it has ended with status 1" in line for line in logged)
    assert seen[:3] == [("business_mcp_connections", "it", how) for how in ("connected", "lost", "connected")]
    assert alive(tmp_path) == [], "and none is left behind"


async def test_a_server_that_stays_away_is_a_tool_error(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 1.0
    async with opened(tmp_path, "well") as source:
        await until_listed(source)
        tool = named(source, "search")

    async def time_passes() -> None:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(PATIENCE_SECONDS + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(time_passes)
        with pytest.raises(ToolError, match="not connected"):
            await tool.run({})


async def test_a_call_that_is_given_up_leaves_the_connection_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, "well", allow={"search"}) as source:
        await until_listed(source)
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(source, "search")
        assert scope.cancelled_caught
        assert await call(source, "search") == "found"
        assert len(pids(tmp_path)) == 1


async def test_what_is_no_message_is_passed_over_and_what_is_no_result_loses_the_call(
    tmp_path: Path, logged: list[str]
) -> None:
    async with opened(tmp_path, "noise", allow={"search"}) as source:
        await until_listed(source)
        assert await call(source, "search") == "found"
    async with opened(tmp_path, "nonsense", allow={"search"}) as source:
        await until_listed(source)
        with pytest.raises(ToolError, match="lost during the call"):
            await call(source, "search")
        await until_logged(logged, "an answer that cannot be read")


async def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path, logged: list[str]) -> None:
    async with opened(tmp_path, "endless", allow={"search"}) as source:
        await until_listed(source)
        with pytest.raises(ToolError, match="lost during the call"):
            await call(source, "search")
        await until_logged(logged, "more than 4 MiB")


@pytest.mark.long
async def test_a_server_that_sends_without_end_waits_for_us(tmp_path: Path) -> None:
    """It is as far ahead as the pipe is long, and not more; without a pace it is through with a million in a minute."""
    async with opened(tmp_path, "floods", allow={"search"}) as source:
        await until_listed(source)
        began = time.monotonic()
        with trio.move_on_after(2):
            await call(source, "search")
        said = int((tmp_path / "count").read_text(encoding="utf-8"))
        assert said < MOST_AT_ONCE + MOST_PER_SECOND * (time.monotonic() - began) + PIPE_BYTES / LEAST_BYTES


async def test_a_pace_is_kept_over_time(autojump_clock: trio.testing.MockClock) -> None:
    pace, began = Pace(), trio.current_time()
    for _ in range(100):
        await pace.took(100)
    assert trio.current_time() - began == pytest.approx((10_000 - MOST_AT_ONCE) / MOST_PER_SECOND)


async def test_of_ten_thousand_tools_as_many_are_offered_as_endpoints_take_and_the_log_says_so(
    tmp_path: Path, logged: list[str]
) -> None:
    async with opened(tmp_path, "many", allow={"tool_9*"}) as source:
        await until_listed(source, 128)
        tools = source.tools()
    assert len(tools) == 128
    assert {tool.sensitivity for tool in tools if tool.title.startswith("tool_9")} == {"low"}
    assert any("more than 1000 tools" in line for line in logged)
    assert any("one of more than 128" in line and "'count': 872" in line for line in logged)


async def test_a_tool_that_changes_after_it_was_allowed_asks_from_then_on_and_so_does_a_new_one(
    tmp_path: Path, logged: list[str]
) -> None:
    async with opened(tmp_path, "changes", allow={"search*"}) as source:
        await until_listed(source, 1)
        first = named(source, "search")
        await until_listed(source, 2)
        assert first.sensitivity == "low"
        assert [named(source, title).sensitivity for title in ("search", "search_more")] == ["high", "high"]
        with pytest.raises(ToolError, match="another one by now"):
            await first.run({})
    assert sum("another than it was when it was allowed" in line for line in logged) == 2


async def test_a_server_that_hangs_holds_up_nobody_for_long_and_has_no_tools(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1.0

    async def time_passes() -> None:
        with waiting_for("its start", SECONDS):
            while not pids(tmp_path):
                await trio.sleep(0.01)
        mock_clock.jump(FIRST_LIST_SECONDS + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(time_passes)
        async with opened(tmp_path, "hangs") as source:
            assert list(source.tools()) == []
    assert alive(tmp_path) == []


@pytest.mark.long
async def test_a_real_server_is_asked_and_given_nothing_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HASHEE_WORKER_NAME", "worker-7")
    allow = {"search_*", "variables", "large", "fail"}
    server = MCP(*PROGRAM, "stdio", name="things", env={"PYTHONPATH": str(ROOT)}, allow=allow)
    async with server.opened() as source:
        await until_listed(source)
        assert await call(source, "search_docs", words="trees") == "3 pages about trees"
        assert await call(source, "delete_page", page="one") == "deleted one"
        given = str(await call(source, "variables")).split()
        assert "HASHEE_WORKER_NAME" in given
        assert "OPENAI_API_KEY" not in given
        with pytest.raises(ToolError, match="fail"):
            await call(source, "fail")
        with pytest.raises(ToolError, match="more than 4 MiB, which is not read"):
            await call(source, "large", megabytes=10)
        assert await call(source, "search_docs", words="more") == "3 pages about more", "on the same connection"


@pytest.mark.long
async def test_a_real_server_over_http_is_killed_in_mid_call_and_started_again(
    tmp_path: Path, logged: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    notes = tmp_path / "notes"
    server = MCP(f"http://127.0.0.1:{port}/mcp", name="things", allow={"search_*", "wait", "large"})
    async with server.opened() as source:
        assert list(source.tools()) == []
        async with serving(port, notes) as process, trio.open_nursery() as nursery:
            await until_listed(source)
            assert await call(source, "search_docs", words="trees") == "3 pages about trees"
            with pytest.raises(ToolError, match="more than 4 MiB"):
                await call(source, "large", megabytes=10)

            async def kill() -> None:
                await until_noted(notes, "wait")
                process.kill()

            nursery.start_soon(kill)
            with pytest.raises(ToolError, match="lost during the call"):
                await call(source, "wait", seconds=60.0)
        async with serving(port, notes):
            await until_noted(notes, "started", 2)
            found = None
            with waiting_for("the server to be asked again", SECONDS):
                while found is None:
                    with suppress(ToolError):  # it is not connected yet
                        found = await call(source, "search_docs", words="more")
            assert found == "3 pages about more"
            assert await call(source, "delete_page", page="one") == "deleted one"
        async with serving(port, notes):
            await until_noted(notes, "started", 3)
            with waiting_for("the third server to be asked", SECONDS):
                while (notes.read_text(encoding="utf-8")).count("delete") < 2:
                    with suppress(ToolError):
                        await call(source, "delete_page", page="two")
    assert notes.read_text(encoding="utf-8").count("delete") == 2
