"""One siege: honest people talk while others send more than anybody can hold, under a manifest's memory limit; then it is counted."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import msgspec
import trio

from sandbox.api import RelayApi
from sandbox.background import background
from sandbox.children import relay_process
from sandbox.people import Person, connected, make_person
from tests.http_page import page_at
from tests.trials.siege.handlers import SLOW, answer_to
from tests.trials.siege.hostile import HostilePerson, make_hostile_person
from tests.trials.siege.targets import READY_SECONDS, Besieged, Target, besieged
from tests.waiting import waiting_for

LOOK_SECONDS = 0.1
HONEST_PEOPLE = 20
HONEST_RATE = 1.0
"""Messages a second of all honest people: the platform lets an agent send five, and the others are answered too."""

LONG_CHARS = 100_000  # the platform's limit of a text
LONG_WRITERS = 14
UNANSWERED_SECONDS = 60.0
"""How long an honest person may wait for an answer in the middle of it, restarts included. Usually it is a second or two."""

FILE_SECONDS = 300.0
"""How long one file may take there and back: its answer is one of those that the platform lets out five of a second."""

PAGE_SECONDS = 5.0
MOST_PERCENT = 80
MOST_REASONS = 12
NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)?")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for: how many of each, and for how long honest people talk."""

    target: Target
    unreadable: int
    long_texts: int
    short_texts: int
    pings: int
    restarts: int
    files: int
    file_mib: int
    seconds: float
    drain_seconds: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`peak_percent`: of each group's limit, the most that its processes held without the page cache. `gate_mib`: of that the file gate.

    `files_back`: those that came back once, and whole.
    """

    target: str
    honest_sent: int
    honest_answered: int
    honest_reordered_or_repeated: int
    slowest_answer_seconds: float
    oom_kills: int
    peak_percent: dict[str, int]
    restart_seconds: list[float]
    others_sent: int
    others_answered: int
    others_waiting: int
    files_sent: int
    files_back: int
    gate_mib: int
    seconds: float
    not_ready: dict[str, int]

    @property
    def is_good(self) -> bool:
        """Everybody honest was answered in time and in order, nothing was killed, there was room left, it came up each time, and so did each file."""
        return (
            self.honest_answered == self.honest_sent
            and not self.honest_reordered_or_repeated
            and self.slowest_answer_seconds < UNANSWERED_SECONDS
            and not self.oom_kills
            and max(self.peak_percent.values()) < MOST_PERCENT
            and not self.others_waiting
            and self.files_back == self.files_sent
            and (self.gate_mib > 0) == (self.files_sent > 0)
        )


class Siege:
    """The people around one agent, and what is seen meanwhile."""

    def __init__(self, besieged_agent: Besieged, agent_id: str, relay_url: str) -> None:
        self.agent = besieged_agent
        self._agent_id = agent_id
        self._relay_url = relay_url
        self.honest: dict[Person, str] = {}
        self.writers: dict[Person, str] = {}
        self.hostile: dict[HostilePerson, str] = {}
        self.peaks: Counter[str] = Counter()
        self.not_ready: Counter[str] = Counter()
        self.restart_seconds: list[float] = []
        self.gate_mib = 0
        self.files_sent = 0
        self.files_back = 0

    async def gather(self) -> None:
        """Everybody meets the agent, once it is ready."""
        with waiting_for("the agent to be ready", READY_SECONDS):
            while [reason for page in self.agent.pages for reason in await trio.to_thread.run_sync(_not_ready, page)]:
                await trio.sleep(LOOK_SECONDS)
        for number in range(HONEST_PEOPLE):
            person = await make_person(self._relay_url, f"honest-{number}")
            self.honest[person] = await person.meet(self._agent_id)
        for number in range(LONG_WRITERS + 1):
            person = await make_person(self._relay_url, f"writer-{number}")
            self.writers[person] = await person.meet(self._agent_id)
        self._filer = await make_person(self._relay_url, "filer")
        self._filers = await self._filer.meet(self._agent_id)
        for name in ("mallory", "pinger"):
            hostile = await make_hostile_person(self._relay_url, name)
            self.hostile[hostile] = await hostile.meet(self._agent_id)

    @property
    def everybody(self) -> list[Person]:
        """All who are connected."""
        return [*self.honest, *self.writers, *self.hostile, self._filer]

    async def talk(self, seconds: float) -> None:
        """The honest people, one or another of them at a time."""
        people, began = list(self.honest), trio.current_time()
        for number in range(int(seconds * HONEST_RATE)):
            await trio.sleep_until(began + number / HONEST_RATE)
            person = random.choice(people)
            await person.say(self.honest[person], f"question {number}")

    async def send_files(self, count: int, size_bytes: int, seconds: float) -> None:
        """One person sends a file, and the next when it has come back; each is waited for so long."""
        for number in range(count):
            content = number.to_bytes(4, "big") * (size_bytes // 4)
            before = len(self._filer.files)
            await self._filer.send_file(self._filers, content, name=f"{number}.bin")
            self.files_sent += 1
            await _until(lambda before=before: len(self._filer.files) > before, seconds)  # type: ignore[misc]
            back = self._filer.files[before:]
            self.files_back += len(back) == 1 and await self._filer.read_file(back[0]) == content

    async def attack(self, order: Order) -> None:
        """Everything that the others send, as fast as the relay takes it."""
        *long_writers, flooder = self.writers
        mallory, pinger = self.hostile
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_unreadable, mallory, order.unreadable)
            nursery.start_soon(self._send_pings, pinger, order.pings)
            for writer in long_writers:
                nursery.start_soon(self._write, writer, order.long_texts, LONG_CHARS)
            nursery.start_soon(self._write, flooder, order.short_texts, 0)

    async def _send_unreadable(self, mallory: HostilePerson, count: int) -> None:
        for number in range(count):
            await mallory.send_unreadable(self.hostile[mallory], number)
            await trio.lowlevel.checkpoint()

    async def _send_pings(self, pinger: HostilePerson, count: int) -> None:
        for _ in range(count):
            await pinger.send_ping(self.hostile[pinger])

    async def _write(self, writer: Person, count: int, chars: int) -> None:
        for number in range(count):
            text = f"{SLOW} {number} ".ljust(chars, "€")
            await writer.say(self.writers[writer], text)
            await trio.lowlevel.checkpoint()

    async def restart(self, count: int, every_seconds: float) -> None:
        """SIGKILL to all of it, again and again, and how long it takes to be there again."""
        for _ in range(count):
            await trio.sleep(every_seconds)
            await trio.to_thread.run_sync(self.agent.kill)
            await self.agent.stop()
            began = trio.current_time()
            await self.agent.start()
            while not await self._is_up():
                await trio.sleep(LOOK_SECONDS)
            self.restart_seconds.append(round(trio.current_time() - began, 1))

    async def watch_memory(self) -> None:
        """Until cancelled."""
        while True:
            for name, group in self.agent.groups.items():
                self.peaks[name] = max(self.peaks[name], group.memory_mib())
            self.gate_mib = max(self.gate_mib, self.agent.gate_mib())
            await trio.sleep(LOOK_SECONDS)

    async def watch_readiness(self) -> None:
        """What the pages say, once a second, until cancelled."""
        while True:
            for page in self.agent.pages:
                for reason in await trio.to_thread.run_sync(_not_ready, page):
                    self.not_ready[reason] += 1
            await trio.sleep(1.0)

    async def _is_up(self) -> bool:
        answers = [await trio.to_thread.run_sync(page_at, f"{page}/healthz", PAGE_SECONDS) for page in self.agent.pages]
        return all(status == HTTPStatus.OK for status, _ in answers)

    # What came of it

    def waits(self, people: dict[Person, str]) -> int:
        """How many messages of these have no answer yet."""
        return sum(
            max(0, len(person.transcript.said(conversation)) - len(person.transcript.heard(conversation)))
            for person, conversation in people.items()
        )

    def slowest_answer(self) -> float:
        """The longest that an honest person waited, in seconds."""
        waited = [0.0]
        for person, conversation in self.honest.items():
            heard = {line.text: line.at for line in person.transcript.lines(conversation) if line.direction == "in"}
            waited += [
                heard.get(answer_to(line.text), trio.current_time()) - line.at
                for line in person.transcript.lines(conversation)
                if line.direction == "out"
            ]
        return max(waited)

    def out_of_order(self) -> int:
        """Honest conversations whose answers are not exactly those to what was said, in that order."""
        return sum(
            person.transcript.heard(conversation)
            != [answer_to(text) for text in person.transcript.said(conversation)][
                : len(person.transcript.heard(conversation))
            ]
            for person, conversation in self.honest.items()
        )


async def run(order: Order, folder: Path) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    began = trio.current_time()
    async with relay_process(log_path=folder / "relay.log") as (_, url), RelayApi(url) as api:
        account = await api.add_agent("Besieged")
        async with besieged(order.target, folder, url, account) as agent:
            siege = Siege(agent, account.agent_id, url)
            await siege.gather()
            async with background() as watching, connected(*siege.everybody):
                watching.start_soon(siege.watch_memory)
                watching.start_soon(siege.watch_readiness)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(siege.talk, order.seconds)
                    nursery.start_soon(siege.attack, order)
                    nursery.start_soon(siege.send_files, order.files, order.file_mib << 20, FILE_SECONDS)
                    nursery.start_soon(siege.restart, order.restarts, order.seconds / (order.restarts + 1))
                await _until(lambda: not siege.waits(siege.honest), UNANSWERED_SECONDS)
                await _until(lambda: not siege.waits(siege.writers), order.drain_seconds)
                return _count(siege, order, trio.current_time() - began)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    with trio.move_on_after(seconds):
        while not condition():
            await trio.sleep(LOOK_SECONDS)


def _count(siege: Siege, order: Order, seconds: float) -> Outcome:
    sent = sum(len(person.transcript.said(conversation)) for person, conversation in siege.honest.items())
    others = sum(len(person.transcript.said(conversation)) for person, conversation in siege.writers.items())
    limits = {
        name: order.target.redis_mib if name == "redis" else order.target.agent_mib for name in siege.agent.groups
    }
    return Outcome(
        target=order.target.name,
        honest_sent=sent,
        honest_answered=sent - siege.waits(siege.honest),
        honest_reordered_or_repeated=siege.out_of_order(),
        slowest_answer_seconds=round(siege.slowest_answer(), 1),
        oom_kills=sum(group.oom_kills() for group in siege.agent.groups.values()),
        peak_percent={name: 100 * siege.peaks[name] // mib for name, mib in limits.items()},
        restart_seconds=siege.restart_seconds,
        others_sent=others,
        others_answered=others - siege.waits(siege.writers),
        others_waiting=siege.waits(siege.writers),
        files_sent=siege.files_sent,
        files_back=siege.files_back,
        gate_mib=siege.gate_mib,
        seconds=round(seconds, 1),
        not_ready=dict(siege.not_ready.most_common(MOST_REASONS)),
    )


def _not_ready(page: str) -> Sequence[str]:
    """The checks that do not hold and why, without the figures in it."""
    status, text = page_at(f"{page}/readyz", PAGE_SECONDS)
    if status == 0:
        return ["no answer"]
    checks = [] if status == HTTPStatus.OK else msgspec.json.decode(text)["checks"]
    return [f"{check['name']}: {NUMBERS.sub('N', check['detail'])}" for check in checks if not check["ok"]]


def as_line(outcome: Outcome) -> str:
    """One line of JSON."""
    return json.dumps(msgspec.structs.asdict(outcome), separators=(",", ":"))
