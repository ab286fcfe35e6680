"""Looks into the store of an agent that is being written, and moves what is due there: its private Redis, on this machine, gone when the chat ends.

Nothing of this is for an agent that runs for real: it shows what is kept, has reminders come early, and kills workers.
"""

import base64
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec
import trio

from bus.control.client import Control, Unanswered
from bus.control.messages import Request
from bus.records.kept import STATE, open_kept
from bus.records.keys import Keys
from bus.records.records import BadRecord
from bus.records.sealing import BusKey
from bus.records.timers import Timer
from bus.settings.places import runtime_dir_of
from bus.steps.timers import Alarm, Timers
from bus.transport.client import RedisClient, open_redis
from bus.views.overview import Overview
from host.embedded import layout_of

LOOK_SECONDS: Final = 0.1
REST_SECONDS: Final = 5.0
"""For so long what has come due may be worked at, before more time passes all the same."""

MOST_SECONDS: Final = 60.0
"""Of real time for one `/time`: each thing that comes due takes up to a second."""


class CannotLook(Exception):
    """The store or the agent does not answer; the text says what is missing."""


class DevStore:
    """The store of one running sandbox."""

    def __init__(self, agent_id: str, state_dir: Path, environ: Mapping[str, str]) -> None:
        """`environ`: where the agent's processes run, for what they find by it."""
        self._keys = Keys(agent_id)
        self._state_dir = state_dir
        self._environ = environ
        self._bus_key: BusKey | None = None
        self._moved_ms: dict[bytes, int] = {}
        """How much earlier each alarm comes than its timer says."""

    async def state(self, conversation_id: str) -> object:
        """Returns what the agent's state holds for a conversation, as JSON has it; None if nothing is kept. Raises CannotLook."""
        async with self._open() as (client, key):
            packed = cast("bytes | None", await client.command("GET", self._keys.state(conversation_id)))
            if packed is None:
                return None
            return msgspec.msgpack.decode(
                open_kept(packed, STATE, conversation_id, key=key, agent_id=self._keys.agent_id)
            )

    async def trace(self, conversation_id: str) -> list[str]:
        """Returns what `hashee-agent trace` says of a conversation, a text for each message, reminder or answer in it. Raises CannotLook."""
        told = await self._told("trace", conversation_id)
        return re.split(r"\n(?=message )", told.rstrip())

    async def kill_workers(self) -> list[int]:
        """Kills every worker as the kernel does when memory is short; returns their pids. Raises CannotLook."""
        control = Control(self._state_dir, runtime_dir_of(self._environ))
        try:
            status = await trio.to_thread.run_sync(partial(_status, control))
        except Unanswered as error:
            raise CannotLook(str(error)) from None
        pids = [one.pid for one in (status.supervisor or _Supervisor()).workers if one.pid]
        if not pids:
            raise CannotLook("no worker runs now: try again in a second")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    async def pass_time(self, seconds: int) -> int:
        """Has all that is due within so many seconds come now, one after the other, and the rest so much earlier; returns how many came.

        The clock stays: only waiting is shortened. Raises CannotLook, also where more comes due than fits into a minute.
        """
        left_ms, came = seconds * 1000, 0
        with trio.move_on_after(MOST_SECONDS) as scope:
            async with self._open() as (client, key):
                timers = Timers(client, self._keys, key)
                while True:
                    first = await self._next_due_ms(client)
                    gap_ms = left_ms if first is None else min(left_ms, max(0, first - await timers.now_ms()))
                    await self._bring_forward(client, gap_ms)
                    left_ms -= gap_ms
                    due = await timers.due(await timers.now_ms())
                    retries = await self._retries_due(client, timers)
                    if not due and not retries:
                        return came
                    came += len(due) + retries
                    await self._until_they_came(client, timers, due)
        if scope.cancelled_caught:
            raise CannotLook(
                f"{came} things came due, and after {MOST_SECONDS:.0f} s there are more: {left_ms // 1000} s did not pass"
            )
        return came

    async def _next_due_ms(self, client: RedisClient) -> int | None:
        """Returns when the next reminder, deadline or second try is due; None if nothing is."""
        found = [await client.command("ZRANGE", key, 0, 0, "WITHSCORES") for key in (self._keys.alarms, self._keys.due)]
        scores = [int(float(cast("list[bytes]", rows)[1])) for rows in found if rows]
        return min(scores, default=None)

    async def _bring_forward(self, client: RedisClient, by_ms: int) -> None:
        for key in (self._keys.alarms, self._keys.due):
            for member in cast("list[bytes]", await client.command("ZRANGE", key, 0, -1)):
                await client.command("ZINCRBY", key, -by_ms, member)
                if key == self._keys.alarms:
                    self._moved_ms[member] = self._moved_ms.get(member, 0) + by_ms

    async def _retries_due(self, client: RedisClient, timers: Timers) -> int:
        return cast(int, await client.command("ZCOUNT", self._keys.due, "-inf", await timers.now_ms()))

    async def _until_they_came(self, client: RedisClient, timers: Timers, due: list[Alarm]) -> None:
        """Waits until what is due was fired and, for a while, until the agent rests. What is due again and again comes as much earlier as it did."""
        while await timers.due(await timers.now_ms(), 1) or await self._retries_due(client, timers):  # noqa: ASYNC110 - Redis tells nobody
            await trio.sleep(LOOK_SECONDS)
        with trio.move_on_after(REST_SECONDS):
            while not await _rests(Overview(client, self._keys)):  # noqa: ASYNC110
                await trio.sleep(LOOK_SECONDS)
        now_ms = await timers.now_ms()
        for alarm in due:
            member = f"{alarm.conversation_id}\0{alarm.timer_id}".encode()
            moved_ms = self._moved_ms.pop(member, 0)
            timer = await _timer_at(timers, alarm)
            if timer is not None and (timer.daily is not None or timer.every_ms) and timer.due_ms > now_ms:
                await client.command("ZADD", self._keys.alarms, "XX", timer.due_ms - moved_ms, member)
                self._moved_ms[member] = moved_ms

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[RedisClient, BusKey]]:
        if self._bus_key is None:
            line = await self._told("keys", "bus")
            self._bus_key = BusKey(base64.b64decode(line.strip().partition("=")[2]))
        async with open_redis(layout_of(self._state_dir, runtime_dir_of(self._environ)).url) as client:
            yield client, self._bus_key

    async def _told(self, *words: str) -> str:
        """Returns what a command of `hashee-agent` prints about this agent. Raises CannotLook."""
        environ = {name: value for name, value in self._environ.items() if not name.startswith("HASHEE_")}
        environ |= {"HASHEE_AGENT_ID": self._keys.agent_id, "HASHEE_STATE_DIR": str(self._state_dir)}
        done = await trio.run_process(
            [sys.executable, "-P", "-m", "supervisor", *words],
            env=environ,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
        if done.returncode != 0:
            raise CannotLook(done.stderr.decode(errors="replace").strip().removeprefix("Error: "))
        return done.stdout.decode(errors="replace")


class _Worker(msgspec.Struct):
    pid: int | None = None


class _Supervisor(msgspec.Struct):
    workers: list[_Worker] = []


class _Status(msgspec.Struct):
    supervisor: _Supervisor | None = None


def _status(control: Control) -> _Status:
    with control.connected() as line:
        return msgspec.json.decode(line.ask(Request("status")).result, type=_Status)


async def _rests(overview: Overview) -> bool:
    counts = await overview.counts()
    return not (counts.queued or counts.running or counts.waiting or counts.unsent or counts.unacknowledged)


async def _timer_at(timers: Timers, alarm: Alarm) -> Timer | None:
    """Returns the timer that stands there now; None if there is none, or one that is another's."""
    packed = await timers.read(alarm)
    try:
        return None if packed is None else timers.opened(packed, alarm)
    except BadRecord:
        return None
