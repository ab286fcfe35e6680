"""MCP servers that are children of a worker, through real processes: they end with it, also where it is killed and they would stay."""

from pathlib import Path

import pytest

from tests.world import World, world

pytest.importorskip("mcp", reason="the extra mcp is not installed")


def servers(starts: Path) -> list[int]:
    return [int(pid) for pid in starts.read_text(encoding="utf-8").split()]


async def all_gone(w: World, pids: list[int]) -> None:
    def is_so() -> bool:
        return not any(is_alive(pid) for pid in pids)

    await w.until(is_so)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
async def test_a_server_that_stays_is_ended_with_its_worker_killed_or_stopped(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    handler = "tests.workers.mcp.handlers:agent"
    settings = {"HASHEE_HANDLER": handler, "HASHEE_WORKERS": "1", "HASHEE_STRIKES": "off", "STARTS": str(starts)}
    async with world(tmp_path, **settings) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "find it")
        await w.all_answered({ada: ["found"]})
        before = servers(starts)
        [worker] = w.worker_pids()
        await w.kill(worker)
        await all_gone(w, before)
        await ada.say(w.conversations[ada], "again")
        await w.all_answered({ada: ["found", "found"]})
        after = servers(starts)
        assert len(after) == len(before) + 1
    await all_gone(w, after)
