"""Walks the effects of an example's talk: once undisturbed, then again for each effect and each process that is killed there."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import trio

from tests.trials.chaos.look import Look, RedisAway
from tests.trials.effects.exports import Exports, exports
from tests.trials.effects.scene import SECONDS, Scene, Talking, Victim, nap, scene
from tests.trials.effects.talks import Example, model
from tests.trials.effects.tap import Point, Strike
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import endpoint

SAID: Final = "emit"
SHOWN_ANEW: Final = "emit_card"
"""Each run shows how far it is, under the card's next revision."""


class Seen(NamedTuple):
    """What one talk came to. `effects`: in their order; `written`: how often each kind of thing was written."""

    heard: list[str]
    effects: list[tuple[str, int]]
    written: Counter[str]
    faults: list[str]


class Row(msgspec.Struct):
    """One example and one victim. `struck`: points at which somebody was killed; `equal`: of them, with the same transcript and everything written once."""

    example: str
    victim: str
    points: int = 0
    struck: int = 0
    equal: int = 0
    seconds: float = 0.0
    findings: list[str] = msgspec.field(default_factory=list)


@asynccontextmanager
async def stage(directory: Path, example: Example, **more: str) -> AsyncIterator["Stage"]:
    """An agent that runs the example, and what the example needs. `more`: further settings."""
    async with exports() as (service, url), endpoint(b"") as server:
        server.decide = model
        settings = {
            "EXPORT_URL": url,
            "OPENAI_BASE_URL": server.base_url,
            "HASHEE_LLM_MODEL": "small",
            "FILES_FOLDER": str(directory / "files"),
            **more,
        }
        async with scene(directory, example.handler, HASHEE_WORKERS="1", **settings) as made:
            yield Stage(example, made, service)


class Stage:
    """Runs talks of one example, one after the other."""

    def __init__(self, example: Example, made: Scene, service: Exports) -> None:
        self.example, self.scene, self._service = example, made, service

    async def talk(self, strike: Strike | None = None) -> Seen:
        """One talk of new people, until everything is at rest."""
        example, tap = self.example, self.scene.tap
        self._service.ends = not example.is_stopped
        starts = len(self._service.tickets)
        async with self.scene.talking(is_group=example.is_group) as at:
            tap.watch(at.conversation, strike)
            faults = list[str]()
            try:
                await example.talk(at)
                await self._rest(at)
            except AssertionError as error:  # somebody waited in vain: what was heard says more
                faults.append(str(error))
            heard = example.heard(at)
            if len(self._service.tickets) > starts + 1:
                faults.append("the service started the export twice")
            faults += [f"unreadable: {reason}" for reason in at.ada.unreadable]
            faults += await trio.to_thread.run_sync(self._look.dead)
            return Seen(heard, tap.points, tap.written, faults)

    async def struck(self, victim: Victim, points: Iterable[Point], usual: Seen) -> Row:
        """One talk for each point, with a kill there; compared with the usual one."""
        name = self.example.name
        row = Row(name, victim)
        began = trio.current_time()
        for point in points:
            seen = await self.talk(self.scene.strike(victim, point))
            row.points += 1
            row.struck += self.scene.tap.has_struck
            bad = _difference(seen, usual, self.example)
            if bad:
                row.findings.append(f"{name}, {victim} killed {point}: {bad}")
            else:
                row.equal += self.scene.tap.has_struck
            await self.scene.world.until_ready()
        row.seconds = trio.current_time() - began
        return row

    @property
    def _look(self) -> Look:
        return Look(self.scene.redis.socket, self.scene.world.keys)

    async def _rest(self, at: Talking) -> None:
        """Until nothing of it is under way, and everything said has reached her."""
        left: list[str] = []

        def is_at_rest() -> bool:
            nonlocal left
            try:
                left = self._look.unfinished({at.conversation: 0})
            except RedisAway:
                left = ["Redis is away"]
            return not left

        with waiting_for("the conversation to be at rest", SECONDS, lambda: left):
            while at.ada.unacknowledged or not is_at_rest():
                await nap()


def points_of(effects: Sequence[tuple[str, int]]) -> list[Point]:
    """Before and after each."""
    return [Point(script, count, when) for script, count in effects for when in ("before", "after")]


def _difference(seen: Seen, usual: Seen, example: Example) -> list[str]:
    """What is not as it was."""
    found = list(seen.faults)
    if seen.heard != usual.heard:
        found.append(f"heard {seen.heard}")
    for what, count in seen.written.items():
        if count > usual.written[what] and not (example.shows_progress and what == SHOWN_ANEW):
            if example.may_be_unknown and what == SAID:  # that nobody knows whether it was done
                continue
            found.append(f"{what} was written {count} times instead of {usual.written[what]}")
    return found
