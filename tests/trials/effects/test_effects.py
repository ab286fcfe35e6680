"""A walk over a few effects, and that it sees what it is for. The whole is `make effects`."""

from pathlib import Path

import pytest

from bus.transport.lua import packed
from tests.trials.effects.commands import CommandReader
from tests.trials.effects.scene import Talking
from tests.trials.effects.talks import EXAMPLES, Example
from tests.trials.effects.tap import Point
from tests.trials.effects.walk import stage

COMMANDS = [("PING",), ("SET", "a\r\n$3", b"\x00\r\n*1\r\n"), ("GET", "")]


@pytest.mark.pure
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_commands_are_cut_out_of_whatever_pieces_they_come_in(size: int) -> None:
    whole = b"".join(map(packed, COMMANDS)) + b"PING\r\n"
    reader = CommandReader()
    found = [one for at in range(0, len(whole), size) for one in reader.feed(whole[at : at + size])]
    assert [one.words for one in found] == [
        (b"PING",),
        (b"SET", b"a\r\n$3", b"\x00\r\n*1\r\n"),
        (b"GET", b""),
        (b"PING",),
    ]
    assert b"".join(one.raw for one in found) == whole


async def test_a_vote_is_counted_once_though_its_worker_dies_when_it_is_written(tmp_path: Path) -> None:
    [lunch] = [one for one in EXAMPLES if one.name == "lunch"]
    async with stage(tmp_path, lunch) as one:
        seen = await one.talk(one.scene.strike("worker", Point("settle", 2, "after")))
        assert one.scene.tap.has_struck
    assert seen.heard == list(lunch.hears)
    assert seen.faults == []
    assert (seen.written["state"], seen.written["emit_card"], seen.written["timer"]) == (3, 3, 1)


async def count(at: Talking) -> None:
    for number in (1, 2):
        await at.say("how many?")
        await at.hear(number)


@pytest.mark.long
async def test_the_walk_finds_an_agent_that_forgets(tmp_path: Path) -> None:
    forgetful = Example("forgetful", "tests.trials.effects.handlers:forgetful", count, ())
    async with stage(tmp_path, forgetful) as one:
        usual = await one.talk()
        assert usual.heard == ["1", "2"]
        row = await one.struck("worker", [Point("accept", 2, "before")], usual)
    assert (row.struck, row.equal) == (1, 0)
    assert row.findings == ["forgetful, worker killed before accept#2: [\"heard ['1', '1']\"]"]
