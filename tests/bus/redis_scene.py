"""The scene on a real Redis: the same steps as in memory, by the scripts."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from redis.exceptions import ResponseError

from bus.memory.world import size_of
from bus.records.budgets import DAY_MS
from bus.records.kept import is_wait
from bus.records.keys import JOBS_GROUP, REPLIES_GROUP, Keys
from bus.records.records import Job, decode_job_record
from bus.records.saved import pairs
from bus.steps.held import Notes
from bus.steps.kept_steps import KeptSteps
from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.outbox import Outbox
from bus.steps.outside import OutsideMessages
from bus.steps.placing import Placing as PlacingInRedis
from bus.steps.policies import Policies, PolicyStore
from bus.steps.recovery import Recovery
from bus.steps.store import MOST_WAITING_IN_ALL, InboundStore
from bus.steps.timers import Timers as TimersInRedis
from bus.steps.write_count import Found, Proof, WriteCount
from bus.transport.client import Commands
from bus.transport.lua import Argument, Scripts
from bus.transport.readers import StreamEntry, decode_entries
from bus.transport.wire import Value, Wire, failure
from tests.bus.builders import AGENT, BUS_KEY
from tests.bus.scenes import RESTING_FIELDS, RESTING_KINDS, SERVER, Facts, Supervisor, Worker, at_once
from tests.bus.traits import Inbound, Letters, Outbound, Outside, Placing, Reclaiming, Timers, Unread, Waiting


class DirectClient:
    """Commands over a connection that is asked in the caller's own thread."""

    def __init__(self, url: str, scripts: Scripts) -> None:
        self._scripts = scripts
        self._wire = Wire(url, scripts, answer_timeout_seconds=10.0)

    async def command(self, *command: Argument) -> Value:
        return self.ask(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        script = self._scripts[name]
        used = (*script.of_the_board(keys), *script.own(keys))
        return self.ask("EVALSHA", script.sha1, len(used), *used, *arguments)

    def ask(self, *command: Argument) -> Value:
        [answer] = self.ask_all([command])
        return answer

    def ask_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Value]:
        answers: list[Value] = []
        for answer in self._wire.call(commands) if commands else []:
            if isinstance(answer, ResponseError):
                raise failure(answer)
            answers.append(answer)
        return answers

    def close(self) -> None:
        self._wire.close()


async def read_one(commands: Commands, stream: str, group: str, consumer: str) -> StreamEntry | None:
    """What is new in a stream, without waiting for it."""
    command = ("XREADGROUP", "GROUP", group, consumer, "COUNT", 1, "STREAMS", stream, ">")
    return next(iter(decode_entries(await commands.command(*command))), None)


@dataclass
class RedisWorker:
    name: str
    steps: KeptSteps
    commands: Commands
    keys: Keys

    async def take(self) -> Job | None:
        entry = await read_one(self.commands, self.keys.jobs, JOBS_GROUP, self.name)
        return None if entry is None else self.steps.unpack(entry.id, entry.fields)

    async def renew(self, *entry_ids: str) -> tuple[list[str], list[str]]:
        keys = [self.keys.jobs, self.keys.interrupted]
        answer = await self.commands.script("renew", keys, JOBS_GROUP, self.name, *entry_ids)
        lost, superseded = cast("list[list[bytes]]", answer)
        return [one.decode() for one in lost], [one.decode() for one in superseded]


class RedisSupervisor:
    def __init__(self, commands: Commands, name: str, most_waiting_in_all: int) -> None:
        self.name = name
        self.commands = commands
        self.keys = Keys(AGENT)
        self.write_count = WriteCount()
        self.store: Inbound = InboundStore(commands, AGENT, name, self.write_count, most_waiting_in_all)
        self.outbox: Outbound = Outbox(commands, AGENT, name, self.write_count)
        self.outside: Outside = OutsideMessages(commands, self.keys)
        self.recovery: Reclaiming = Recovery(commands, self.keys, name)
        self.dead: Letters = DeadLetters(commands, self.keys)
        self.quarantine: Unread = Quarantine(commands, self.keys)
        self.notes: Waiting = Notes(commands, self.keys)
        self.placing: Placing = PlacingInRedis(commands, self.keys)
        self.timers: Timers = TimersInRedis(commands, self.keys, BUS_KEY)

    async def take_reply(self) -> StreamEntry | None:
        return await read_one(self.commands, self.keys.replies, REPLIES_GROUP, self.name)

    async def check(self, proof: Proof = SERVER, *, certainly_back: bool = False) -> Found:
        return await self.write_count.check(self.commands, self.keys, proof, certainly_back=certainly_back)


@dataclass
class RedisScene:
    """`commands`: what supervisors and workers ask; by default the same client as the scene's own."""

    url: str
    keys: Keys = field(default_factory=lambda: Keys(AGENT))

    def __post_init__(self) -> None:
        self.client = DirectClient(self.url, Scripts.load())
        self.commands: Commands = self.client
        self.client.ask("FLUSHALL")
        at_once(Recovery(self.client, self.keys, "scene").make_groups())

    async def supervisor(self, name: str, *, most_waiting_in_all: int = MOST_WAITING_IN_ALL) -> Supervisor:
        return RedisSupervisor(self.commands, name, most_waiting_in_all)

    async def worker(self, name: str, policies: Policies | None = None) -> Worker:
        await PolicyStore(self.client, self.keys, BUS_KEY).publish(policies or Policies())
        return RedisWorker(
            name, KeptSteps(self.commands, AGENT, BUS_KEY, name, policies=policies), self.commands, self.keys
        )

    async def used_today(self, subject: str) -> tuple[int, int]:
        key, seconds = self.keys.budget(subject), cast("list[bytes]", self.client.ask("TIME"))[0]
        day, messages, tokens = (
            int(one or 0) for one in cast("list[bytes]", self.client.ask("HMGET", key, "day", "messages", "tokens"))
        )
        return (messages, tokens) if day == int(seconds) * 1000 // DAY_MS else (0, 0)

    async def time_passes(self, milliseconds: int) -> None:
        commands: list[tuple[Argument, ...]] = []
        for stream, group in ((self.keys.jobs, JOBS_GROUP), (self.keys.replies, REPLIES_GROUP)):
            rows = self.client.ask("XPENDING", stream, group, "-", "+", 1000)
            for entry, consumer, idle, _ in cast("list[tuple[bytes, bytes, int, int]]", rows):
                claim = ("XCLAIM", stream, group, consumer, 0, entry, "IDLE", idle + milliseconds, "JUSTID")
                commands.append(claim)
        for name in (self.keys.due, self.keys.resend_times, self.keys.busy, self.keys.behind, self.keys.alarms):
            members = cast("list[bytes]", self.client.ask("ZRANGE", name, 0, -1))
            commands += [("ZINCRBY", name, -milliseconds, member) for member in members]
        for key in (one for one in self._names() if one.decode().startswith(self.keys.budget(""))):
            found = dict(pairs(cast("list[bytes]", self.client.ask("HGETALL", key))))
            recent = " ".join(str(int(time) - milliseconds) for time in found.get(b"recent", b"").split())
            until, _, by = found.get(b"told", b"0 nobody").decode().partition(" ")
            day = int(found.get(b"day", 0)) - milliseconds // DAY_MS
            told = f"{max(0, int(until) - milliseconds)} {by}"
            commands.append(("HSET", key, "recent", recent, "told", told, "day", day))
        at = cast("bytes | None", self.client.ask("HGET", self.keys.rate, "at"))
        if at is not None:
            commands.append(("HSET", self.keys.rate, "at", int(at) - milliseconds))
        for lease in (self.keys.reclaimer, self.keys.outside_turn):
            left = cast(int, self.client.ask("PTTL", lease))
            if left > 0:
                commands.append(("PEXPIRE", lease, left - milliseconds))
        self.client.ask_all(commands)

    async def lose_dead_letters(self) -> None:
        self.client.ask("DEL", self.keys.dead)

    async def add_prekey(self, number: int) -> None:
        self.client.ask("HSET", self.keys.one_time_prekeys, number, "sealed")

    def _names(self) -> list[bytes]:
        return cast("list[bytes]", self.client.ask("KEYS", self.keys.pattern.replace("{", "\\{").replace("}", "\\}")))

    async def remember(self) -> object:
        names = self._names()
        dumps = self.client.ask_all([("DUMP", name) for name in names])
        left = self.client.ask_all([("PTTL", name) for name in names])
        return list(zip(names, dumps, (max(0, cast(int, one)) for one in left), strict=True))

    async def go_back(self, remembered: object) -> None:
        began = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 <= began + 1:
            pass  # a restart takes longer than the millisecond that entry ids are made of
        names = self._names()
        restores = cast("list[tuple[bytes, bytes, int]]", remembered)
        self.client.ask_all(
            [("DEL", name) for name in names] + [("RESTORE", name, left, dump) for name, dump, left in restores]
        )

    def contents(self) -> dict[bytes, object]:
        """All of the agent's keys with what is in them."""
        return {name: self._content(name) for name in self._names()}

    def _content(self, name: bytes) -> object:
        match self.client.ask("TYPE", name):
            case b"string":
                return self.client.ask("GET", name)
            case b"hash":
                flat = cast("list[bytes]", self.client.ask("HGETALL", name))
                return dict(zip(flat[::2], flat[1::2], strict=True))
            case b"set":
                return set(cast("list[bytes]", self.client.ask("SMEMBERS", name)))
            case b"list":
                return self.client.ask("LRANGE", name, 0, -1)
            case b"zset":
                return self.client.ask("ZRANGE", name, 0, -1, "WITHSCORES")
            case _:
                return self.client.ask("XRANGE", name, "-", "+")

    async def facts(self) -> Facts:
        keys = self.keys
        conversations = [self._id(name) for name in self._names() if self._kind(name) == "conv"]
        commands: list[tuple[Argument, ...]] = [
            ("GET", keys.write_count),
            ("GET", keys.waiting),
            ("ZRANGE", keys.busy, 0, -1),
        ]
        for one in conversations:
            commands += [("HMGET", keys.conversation(one), "entry", "reply"), ("ZCARD", keys.mailbox(one))]
        write_count, waiting, busy, *rest = self.client.ask_all(commands)
        under_way = cast("list[list[bytes | None]]", rest[::2])
        return Facts(
            write_count=int(cast("bytes | None", write_count) or 0),
            waiting=int(cast("bytes | None", waiting) or 0),
            in_mailboxes=sum(cast("list[int]", rest[1::2])),
            busy=frozenset(name.decode() for name in cast("list[bytes]", busy)),
            at_work=frozenset(name for name, two in zip(conversations, under_way, strict=True) if any(two)),
            counted=self._counted(),
            waits=self._waits(conversations),
        )

    def _counted(self) -> dict[str, int]:
        flat = cast("list[bytes]", self.client.ask("HGETALL", self.keys.load))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {name.decode(): int(value) for name, value in pairs if name != b"most_out"}

    def _waits(self, conversations: Sequence[str]) -> dict[str, int]:
        """What should be counted, by what lies there."""
        found, keys = Counter[str](), self.keys
        for one in conversations:
            waiting = [
                *cast("list[bytes]", self.client.ask("ZRANGE", keys.mailbox(one), 0, -1)),
                *cast("list[bytes]", self.client.ask("ZRANGE", keys.parked(one), 0, -1)),
                *cast("list[bytes]", self.client.ask("ZRANGE", keys.placed(one), 0, -1)),
            ]
            loads = [("s:" + decode_job_record(record).sender_id, size_of(record)) for record in waiting]
            reply, running = cast(
                "list[bytes | None]", self.client.ask("HMGET", keys.conversation(one), "reply", "load")
            )
            lines = (line.split(" ", 1) for line in (running or b"").decode().splitlines())
            loads += [(sender, int(number)) for number, sender in lines]
            for sender, size in loads:
                found[sender] += size
                found["total"] += size
            kept = cast("list[bytes]", self.client.ask("HGETALL", keys.waits(one)))
            for name, record in zip(kept[::2], kept[1::2], strict=True):
                if is_wait(name):
                    found["waits_open"] += 1
                    found["waits"] += size_of(record)
            out_box = cast("list[bytes]", self.client.ask("LRANGE", keys.out_box(one), 0, -1))
            found["out"] += sum(map(size_of, out_box if reply in (None, b"sent") else out_box[1:]))
        line = cast("list[bytes]", self.client.ask("LRANGE", keys.outside, 0, -1))
        found["outside"] = sum(map(size_of, line))
        return dict(+found)

    def _kind(self, name: bytes) -> str:
        return self.keys.split(name.decode())[0]

    def _id(self, name: bytes) -> str:
        return self.keys.split(name.decode())[1]

    async def leftovers(self) -> list[str]:
        left = [name.decode() for name in self._names() if self._kind(name) not in RESTING_KINDS]
        for name in self._names():
            if self._kind(name) == "conv":
                fields = cast("list[bytes]", self.client.ask("HKEYS", name))
                left += [f"{self._id(name)}: {one.decode()}" for one in fields if one.decode() not in RESTING_FIELDS]
        for stream in (self.keys.jobs, self.keys.replies):
            if self.client.ask("XLEN", stream):
                left.append(stream)
        return left

    def close(self) -> None:
        self.client.close()
