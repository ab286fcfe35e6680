"""Stands between an agent and its Redis, and stops at one effect: before it is done, or when it is done and the asker does not know it yet.

An *effect* is a script that writes and names the conversation that is watched. Its name and count within the conversation (`emit#2`) are the
point at which somebody is killed: they are the same in each run of the same talk, whatever else the processes do meanwhile.
"""

import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, cast

import hiredis
import trio

from bus.transport.lua import WRITES, Rights, Scripts, commands_of
from sandbox.background import background
from tests.trials.effects.commands import Command, CommandReader

RECEIVE_BYTES: Final = 1 << 18
BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
FIRST_KEY: Final = 3
EFFECTS_OF_AN_END: Final = frozenset({b"state", b"store", b"wait", b"drop_wait", b"timer", b"drop_timer", b"exchange"})
A_STREAM_BEGINS: Final = b":start:"
"""In the place of what begins a stream, which each run does: of one that was broken off the supervisor ends it."""

ONCE: Final = frozenset({"settle", "finish", "emit", "emit_card", "fire", "place_job"})
"""What must be written as often as in an undisturbed talk, whoever dies. (A session that is renewed, say, is written when Redis has died.)"""

WRITTEN: Final = frozenset({b"done", b"queued", b"fired", b"placed"})
"""What those scripts answer that have written."""

When: TypeAlias = Literal["before", "after"]


class Point(NamedTuple):
    """The `number`-th time that this script names the conversation, before or after it is done."""

    script: str
    number: int
    when: When

    def __str__(self) -> str:
        return f"{self.when} {self.script}#{self.number}"


class Strike(NamedTuple):
    """Who is killed at a point. `kill` is given the pid of the process that asked, and returns whether that is gone."""

    point: Point
    kill: Callable[[int], Awaitable[bool]]


class Effect(NamedTuple):
    """One script call. `what`: its name, for a job's end also what is written with it."""

    script: str
    what: tuple[str, ...]


class Tap:
    """All connections of one agent. `points`: the effects of the conversation that is watched, in their order."""

    def __init__(self, redis_socket: Path) -> None:
        self._redis_socket = redis_socket
        self._names = _effects()
        self._conversation = b""
        self._strike: Strike | None = None
        self.points: list[tuple[str, int]] = []
        self.written = Counter[str]()
        """How often what must be written once was written."""
        self.has_struck = False
        self.askers: list[int] = []
        """The processes that asked for them."""

    def watch(self, conversation_id: str, strike: Strike | None = None) -> None:
        """Counts the effects of this conversation from now on, and strikes once."""
        self._conversation = conversation_id.encode()
        self._strike, self.has_struck = strike, False
        self.points, self.written, self.askers = [], Counter(), []

    def effect_of(self, command: Command) -> Effect | None:
        """Returns the effect of the conversation that is watched which this command is, None for anything else."""
        words = command.words
        if len(words) <= FIRST_KEY or words[0].upper() != b"EVALSHA" or not self._conversation:
            return None
        name = self._names.get(words[1])
        if name is None or not any(word.endswith(self._conversation) for word in words[FIRST_KEY:]):
            return None
        if name == "emit" and any(A_STREAM_BEGINS in word for word in words):
            return Effect(name, ())
        what = [word.decode() for word in words if name == "settle" and word in EFFECTS_OF_AN_END]
        return Effect(name, (name, *what))

    async def carry(self, client: trio.SocketStream) -> None:
        """Serves one connection until either end is gone."""
        pid = _pid_of(client.socket)
        try:
            server = await trio.open_unix_socket(self._redis_socket)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        async with client, server, trio.open_nursery() as nursery:
            link = _Link(self, client, server)
            nursery.start_soon(link.carry_answers, nursery.cancel_scope)
            with suppress(*BROKEN):
                await link.carry_commands(pid)
            nursery.cancel_scope.cancel()

    def due(self, effect: Effect, pid: int) -> Strike | None:
        """Counts an effect that a process asks for; returns the strike that is due at it."""
        self.askers.append(pid)
        count = 1 + sum(script == effect.script for script, _ in self.points)
        self.points.append((effect.script, count))
        strike = self._strike
        if strike is None or strike.point[:2] != (effect.script, count):
            return None
        self._strike = None
        return strike

    def wrote(self, effect: Effect, answer: object) -> None:
        """Notes what an effect's answer says of it."""
        if effect.script not in ONCE:
            return
        first = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(first, bytes) and first in WRITTEN:
            self.written.update(effect.what)


class _Link:
    """One connection of the agent and the one to Redis that it is carried to."""

    def __init__(self, tap: Tap, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._tap, self._client, self._server = tap, client, server
        self._asked = deque[Effect | None]()
        self._answers = hiredis.Reader()
        self._is_held = False
        self._held = bytearray()
        self._changed = trio.Event()

    async def carry_commands(self, pid: int) -> None:
        """Until the client has ended, or is told so by a strike."""
        reader = CommandReader()
        while data := await self._client.receive_some(RECEIVE_BYTES):
            for command in reader.feed(data):
                effect = self._tap.effect_of(command)
                strike = None if effect is None else self._tap.due(effect, pid)
                if strike is None:
                    await self._pass_on(command, effect)
                elif not await self._strike(strike, command, effect, pid):
                    return

    async def _strike(self, strike: Strike, command: Command, effect: Effect | None, pid: int) -> bool:
        """Kills before or after the command is done. Returns whether the connection goes on."""
        if strike.point.when == "after":
            await self._until(lambda: not self._asked)
            self._is_held = True
            await self._pass_on(command, effect)
            await self._until(lambda: not self._asked)
        with trio.CancelScope(shield=True):  # the end of Redis ends this connection
            is_gone = await strike.kill(pid)
            self._tap.has_struck = True
        if is_gone:
            return False
        if strike.point.when == "before":
            await self._pass_on(command, effect)
        while self._held:
            held, self._held = self._held, bytearray()
            await self._client.send_all(held)
        self._is_held = False
        return True

    async def _pass_on(self, command: Command, effect: Effect | None) -> None:
        self._asked.append(effect)
        await self._server.send_all(command.raw)

    async def carry_answers(self, both: trio.CancelScope) -> None:
        """Until Redis has ended, and then the client's connection too."""
        with suppress(*BROKEN):
            while data := await self._server.receive_some(RECEIVE_BYTES):
                self._answers.feed(data)
                while (answer := self._answers.gets()) is not False:
                    effect = self._asked.popleft() if self._asked else None  # what is published answers nobody
                    if effect is not None:
                        self._tap.wrote(effect, answer)
                self._changed.set()
                self._changed = trio.Event()
                if self._is_held:
                    self._held += data
                else:
                    await self._client.send_all(bytes(data))
        both.cancel()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


@asynccontextmanager
async def tap_of(redis_socket: Path, at: Path) -> AsyncIterator[Tap]:
    """A tap that listens at a socket of its own while the block runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(at))
        listening.listen(128)
        listening.setblocking(False)
        tap = Tap(redis_socket)
        async with background() as nursery:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
            nursery.start_soon(trio.serve_listeners, tap.carry, [listener])
            yield tap


def _effects() -> dict[bytes, str]:
    """The names of the scripts that write, by what they are called with."""
    scripts = [one for rights in Rights for one in Scripts.load(rights).all()]
    return {one.sha1: one.name for one in scripts if commands_of(one) & WRITES}


def _pid_of(client: trio.socket.SocketType) -> int:
    """Who connected."""
    told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return cast(int, struct.unpack("3i", told)[0])
