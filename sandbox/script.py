"""The scripted conversation: 20 messages from 3 people, with a streamed answer, a burst and a forced reconnect.

It says what the people say and waits for the answers; `score.py` counts, `demo.py` starts and ends everything.
"""

from collections.abc import Callable, Mapping

import msgspec
import trio

from sandbox.background import background
from sandbox.people import Person, connected, make_person
from sandbox.score import Score, score
from sandbox.stage import RunningSandbox

ANSWER_SECONDS = 20.0
"""How long an answer may take before the script goes on without it and counts it as lost."""

SETTLE_SECONDS = 0.3
"""After the last answer: a duplicate would come now."""

BURST = ("one", "two", "three", "four", "five")

Show = Callable[[str, str, str], None]
"""Called with speaker, hearer and text for each line as it appears."""


class PlayResult(msgspec.Struct, frozen=True):
    score: Score
    people: int
    streamed: int
    reconnects: int
    unreadable: int
    versions: tuple[str, ...]

    @property
    def failure(self) -> str | None:
        """Why this run was not perfect; None if it was."""
        if self.unreadable:
            return f"{self.unreadable} envelopes could not be read"
        if not self.score.is_perfect:
            return f"not every message was answered once and in order: {self.score}"
        if not self.streamed:
            return "no answer was streamed"
        if not self.reconnects:
            return "the agent did not reconnect"
        return None


class Play:
    def __init__(self, stage: RunningSandbox, show: Show) -> None:
        self._stage = stage
        self._show = show
        self._conversations: dict[Person, str] = {}

    async def play(self) -> PlayResult:
        ada, ben, cem = [await self._newcomer(name) for name in ("Ada", "Ben", "Cem")]
        async with connected(ada, ben, cem), background() as nursery:
            for person in self._conversations:
                nursery.start_soon(self._show_lines, person)
            await self._each({ada: ("hello", "how are you?"), ben: ("hi there",), cem: ("good morning", "你好")})
            await self._each({ada: ("/stream this answer arrives word by word",)})
            await self._burst(ben)
            await self._reconnect(cem)
            await self._each(
                {
                    ada: ("still there?", "`*not markdown*`", "and one more"),
                    ben: ("that was quick", "thanks"),
                    cem: ("nothing lost", "goodbye 👋"),
                }
            )
            await self._drain()
            await trio.sleep(SETTLE_SECONDS)
        return await self._outcome()

    async def _newcomer(self, name: str) -> Person:
        person = await make_person(self._stage.relay_url, name)
        self._conversations[person] = await person.meet(self._stage.agent_id)
        return person

    async def _each(self, texts: Mapping[Person, tuple[str, ...]]) -> None:
        """Everyone at the same time, each one waiting for the answer before the next message."""
        async with trio.open_nursery() as nursery:
            for person, said in texts.items():
                nursery.start_soon(self._ask_one_by_one, person, said)

    async def _ask_one_by_one(self, person: Person, texts: tuple[str, ...]) -> None:
        for text in texts:
            await person.say(self._conversations[person], text)
            await self._answers(person)

    async def _burst(self, person: Person) -> None:
        """Five at once, waiting for nothing."""
        for text in BURST:
            await person.say(self._conversations[person], text)
        await self._answers(person)

    async def _reconnect(self, person: Person) -> None:
        """The relay hangs up on the agent; what is said meanwhile is answered after it came back."""
        ended = await self._stage.api.fault("disconnect", owner_id=self._stage.agent_id)
        self._show("relay", "agent", f"(hangs up: {ended} connection)")
        await person.say(self._conversations[person], "said while the agent was away")
        await person.say(self._conversations[person], "and this right after")
        await self._answers(person)

    async def _answers(self, person: Person) -> None:
        """Waits until this person has as many answers as it has said, or too long."""
        transcript, conversation = person.transcript, self._conversations[person]
        with trio.move_on_after(ANSWER_SECONDS):
            await transcript.until(lambda: len(transcript.heard(conversation)) >= len(transcript.said(conversation)))

    async def _drain(self) -> None:
        for person in self._conversations:
            await self._answers(person)

    async def _show_lines(self, person: Person) -> None:
        transcript, conversation = person.transcript, self._conversations[person]
        shown = 0
        while True:
            fresh = await transcript.more(conversation, shown)
            shown += len(fresh)
            for line in fresh:
                ends = (person.name, "agent") if line.direction == "out" else ("agent", person.name)
                self._show(*ends, line.text)

    async def _outcome(self) -> PlayResult:
        people = list(self._conversations)
        stats = (await self._stage.api.stats()).owners[self._stage.agent_id]
        return PlayResult(
            score=score(
                (it.transcript.said(where), it.transcript.heard(where)) for it, where in self._conversations.items()
            ),
            people=len(people),
            streamed=sum(person.counts["streams"] for person in people),
            reconnects=stats.get("connections", 0) - 1,
            unreadable=sum(sum(person.unreadable.values()) for person in people),
            versions=tuple(sorted({version for person in people for version in person.versions})),
        )
