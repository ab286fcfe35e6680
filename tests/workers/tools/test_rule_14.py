"""When a day's yes counts, played at random against a few lines that say when it may: by whom, for what, for how long, and after having seen what."""

import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import FakeEndpoint, endpoint, events
from tests.workers.stage import Heard, Stage
from tests.workers.tools.scenes import agent_at, calls
from workers import Agent

WITHIN_SECONDS = 60
STEPS = 14
SEEDS = 5
DAY_SECONDS = 24 * 3600
MEDIUM = ("send", "book")
ALONE = ("send", "send then send")
"""With nothing else to be seen a day's yes counts for long."""
SEVERAL = (
    "send",
    "book",
    "send",
    "send+book",
    "read+send",
    "read then send",
    "send then send",
    "send then book",
    "read",
)


def model(request: dict[str, Any]) -> bytes:
    """Calls what the last message says: `a+b` in one turn, `a then b` in two."""
    said = request["messages"]
    last = max(at for at, turn in enumerate(said) if turn["role"] == "user")
    turns = said[last]["content"].split(" then ")
    taken = sum(bool(turn.get("tool_calls")) for turn in said[last:])
    return events("Done.") if taken >= len(turns) else calls(*((name, {}) for name in turns[taken].split("+")))


@dataclass
class Rule:
    """What may count: written down by itself, from the words of docs/llm.md."""

    yes: dict[tuple[str, str], float] = field(default_factory=dict)
    """When who has said yes for a day to which tool, with its version."""

    seen: set[str] = field(default_factory=set)
    """Tools whose output the conversation holds."""

    def covers(self, tool: str, *, is_first_turn: bool) -> bool:
        return is_first_turn and self.seen <= {tool}

    def counts(self, person: str, tool: str, version: int, now: float) -> bool:
        at = self.yes.get((person, f"{tool} {version}"))
        return at is not None and at <= now < at + DAY_SECONDS


@dataclass
class Play:
    """One conversation, played by the dice."""

    dice: random.Random
    server: FakeEndpoint
    ran: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEDIUM, 1))
    rule: Rule = field(default_factory=Rule)
    now: float = 1_800_000_000.0
    plans: tuple[str, ...] = ()

    def agent(self) -> Agent:
        agent = agent_at(self.server)

        def add(name: str, **how: Any) -> None:
            @agent.tool(name=name, **how)
            async def run() -> str:
                self.ran.append(name)
                return f"output of {name}"

        add("read")
        for name in MEDIUM:
            add(name, sensitivity="medium", description=f"Version {self.versions[name]}.")
        return agent

    async def step(self, stage: Stage) -> None:
        what = self.dice.random()
        if what < 0.1:
            await stage.say("/reset")
            self.rule, self.plans = Rule(), self.dice.choice((ALONE, ALONE, SEVERAL))
        elif what < 0.2:
            self.versions[self.dice.choice(MEDIUM)] += 1
        elif what < 0.35:
            self.now += self.dice.choice((3600, DAY_SECONDS - 1, DAY_SECONDS, 2 * DAY_SECONDS))
        stage.agent = self.agent()
        await self.talk(stage, self.dice.choice(("ann", "ann", "ben")), self.dice.choice(self.plans))

    async def talk(self, stage: Stage, person: str, plan: str) -> None:
        """One message to its end, with every card that it may bring and no other."""
        used, heard = set[str](), await stage.say(plan, person)
        for number, turn in enumerate(plan.split(" then ")):
            granted = set[str]()
            for tool in (name for name in turn.split("+") if name in MEDIUM):
                covers, version = self.rule.covers(tool, is_first_turn=number == 0), self.versions[tool]
                is_free = covers and (tool in granted or self.rule.counts(person, tool, version, self.now))
                before = self.ran.count(tool)
                if not is_free:
                    heard = await self.answer(stage, heard, person, tool, covers=covers)
                    if self.ran.count(tool) > before and covers:
                        granted.add(tool)
                        self.rule.yes[person, f"{tool} {version}"] = self.now
            used |= set(turn.split("+"))
        assert [one.text for one in heard if one.text] == ["Done."], plan
        self.rule.seen |= used  # also the word that it was refused

    async def answer(self, stage: Stage, heard: list[Heard], person: str, tool: str, *, covers: bool) -> list[Heard]:
        cards = [one for one in heard if one.card_id]
        assert [card.text for card in cards] == [f"May I run {tool}?"]
        assert ("24 hours" in cards[0].card["details"]) is covers
        before, is_yes = self.ran.count(tool), self.dice.random() < 0.8
        heard = await stage.press(cards[0], who=person, approve=is_yes)
        assert self.ran.count(tool) == before + is_yes
        return heard


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_days_yes_counts_for_what_it_may_and_for_nothing_else(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with endpoint(b"") as server:
        server.decide = model
        play, scene = Play(random.Random(seed), server, plans=(ALONE, SEVERAL)[seed % 2]), MemoryScene()
        monkeypatch.setattr(time, "time", lambda: play.now)
        stage = Stage(scene, play.agent())
        for number in range(STEPS):
            with waiting_for(f"step {number} of the play", WITHIN_SECONDS):
                await play.step(stage)
        assert await stage.dead() == []
        scene.close()
