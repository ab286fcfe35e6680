"""Shows that a kill at any line changes nothing: `await survives(agent, script)` plays a script again and again, with a worker killed at each point.

A point is before and after each thing that a worker writes: a reply, a card, a note of a step or of a model's turn, the end of a job.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from workers.errors import OutcomeUnknown
from workers.handling.agent import Agent
from workers.testing.harness import Harness, HarnessChat
from workers.testing.mocks import Mocks
from workers.testing.said import Said
from workers.testing.scripted import ScriptedLLM

NAMELESS: Final = frozenset({"question_hash", "stream_id", "based_on_revision"})
"""What differs from one run of the script to another, and nobody sees."""

MOST_POINTS: Final = 2000
_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


@dataclass(frozen=True)
class Survived:
    """What `survives` has shown. `kills`: how many; `unknown`: those in a step that may be done once, whose outcome nobody knows then."""

    kills: int
    unknown: tuple[str, ...]


async def survives(
    agent: Agent,
    script: Callable[[HarnessChat], Awaitable[object]],
    *,
    llm: ScriptedLLM | None = None,
    mock_tools: Mocks | None = None,
    group: tuple[str, ...] = (),
    before: Callable[[], object] = lambda: None,
    now: datetime | None = None,
) -> Survived:
    """Plays the script once, then again with a kill at each point; returns what that has shown.

    Raises AssertionError where people hear something else than without the kill, or where what may be done once begins twice; it says at which
    point. `before` is called before each play, to have everything outside of the agent as it was. `llm`, `mock_tools`, `group`, `now`: as for Harness.
    """
    now = now or datetime.now(UTC)
    expected, points = "", 0
    unknown: list[str] = []
    number: int | None = None
    while number is None or number < points:
        before()
        harness = Harness(
            agent,
            llm=None if llm is None else llm.anew(),
            mock_tools=mock_tools,
            group=group,
            now=now,
            dies_at=number,
        )
        try:
            async with harness as chat:
                await script(chat)
        except OutcomeUnknown:
            if not harness.watch.died_in_once:
                raise
        except BaseException as error:
            if harness.watch.died:
                error.add_note(f"with a worker killed {harness.watch.died}")
            raise
        again = [name for (_, name), times in harness.watch.began.items() if times > 1]
        if again:
            raise AssertionError(f"{again[0]} began twice, with a worker killed {harness.watch.died}")
        heard = _transcript(harness)
        if number is None:
            expected, points, number = heard, harness.watch.points, 0
            if points > MOST_POINTS:
                raise ValueError(
                    f"the script has {points} points to kill at, and {MOST_POINTS} are played: make it shorter"
                )
            continue
        if harness.watch.died_in_once:
            unknown.append(harness.watch.died)
        elif heard != expected:
            raise AssertionError(
                f"with a worker killed {harness.watch.died} people heard\n{heard}\nand without it\n{expected}"
            )
        number += 1
    return Survived(points, tuple(unknown))


def _transcript(harness: Harness) -> str:
    """Returns what was said in all conversations, a line each, with the ids of cards by their order; of a progress only how it ended."""
    lines, known = list[str](), dict[str, str]()
    for conversation_id, place in harness.house.places.items():
        said = place.heard
        last = {one.card_id: one for one in said if one.subtype == "progress" or one.revision}
        for one in said:
            if one.card_id in last and "percent" in one.card and last[one.card_id] is not one:
                continue
            line = f"{conversation_id}: {_line(one)}"
            for found in _ID.findall(line):
                known.setdefault(found, f"id {len(known) + 1}")
            lines.append(_ID.sub(lambda match: known[match.group()], line))
    return "\n".join(lines)


def _line(said: Said) -> str:
    if said.text and not said.files:
        return said.text
    if said.files:
        return "; ".join([said.text, *(f"file {one.get('filename')}, {one.get('size')} bytes" for one in said.files)])
    return f"{said.kind} {msgspec.json.encode(_without(said.payload)).decode()}"


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without(one) for name, one in value.items() if name not in NAMELESS}
    return [_without(one) for one in value] if isinstance(value, list) else value
