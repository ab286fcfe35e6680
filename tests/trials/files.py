"""`python -m tests.trials.files`: a file goes there and back, and a process is killed at each step of each call, once for each process.

A tap stands between worker and file gate, at the gate's own socket, and counts bytes: at the step that a run is about it has the process killed
(SIGKILL) before anything more passes. Steps are the calls (get, announce, put, confirm) when they are asked, half-way through their bytes, and
answered but not told. The person must hear the file once and whole, and the words behind it once; the spool must be empty behind each run, and
nothing readable on the disk at the end. The exit status is 1 where that is not so.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from sandbox.api import RelayApi
from sandbox.children import relay_process
from sandbox.people import connected, make_person
from tests.files_world import HANDLER, NEEDLE, comes_back, content_of, leaks, spooled
from tests.waiting import waiting_for
from tests.world import World, agent, environment_of, free_port

STEPS: Final = (
    *("get asked", "get half", "get answered"),
    *("announce asked", "announce answered"),
    *("put asked", "put half", "put answered"),
    *("confirm asked", "confirm answered"),
)
VICTIMS: Final = ("worker", "gate", "supervisor", "redis", "relay")
CALLS: Final = (
    (b"POST /v1/uploads ", "announce"),
    (b"PUT /v1/uploads/", "put"),
    (b"POST /v1/confirm ", "confirm"),
    (b"GET /v1/files/", "get"),
)
SIZE: Final = 2_500_000
AGAIN_SECONDS: Final = 60.0


@dataclass
class Tap:
    """Carries connections to the gate. At `step` it calls `happens`, once, and only then goes on."""

    path: Path
    behind: Path
    step: str = ""
    happens: Callable[[], Awaitable[None]] | None = None
    passed: list[str] = field(default_factory=list)

    async def reaches(self, step: str) -> None:
        self.passed.append(step)
        if step == self.step and self.happens is not None:
            happens, self.happens = self.happens, None
            await happens()

    async def serve(self, client: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            async with client, await trio.open_unix_socket(self.behind) as gate:
                call, length = "", -1
                head = await _head(client)
                call = next((name for begins, name in CALLS if head.startswith(begins)), "")
                length = _length(head)
                await self.reaches(f"{call} asked")
                await gate.send_all(head)
                await self._carry(client, gate, length, f"{call} half" if call == "put" else "")
                answer = await _head(gate)
                length = _length(answer)
                if call == "get":
                    await client.send_all(answer)
                    await self._carry(gate, client, length, "get half", held=16)
                    return
                body = await _exactly(gate, length)
                await self.reaches(f"{call} answered")
                await client.send_all(answer + body)

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, length: int, half: str, *, held: int = 0
    ) -> None:
        """Carries so many bytes; the last `held` are held back until the step behind `half` was reached."""
        passed = 0
        while passed < length - held:
            data = await source.receive_some(min(65536, length - held - passed))
            if not data:
                return
            if half and passed < length // 2 <= passed + len(data):
                await self.reaches(half)
            await sink.send_all(data)
            passed += len(data)
        if held:
            last = await _exactly(source, length - passed)
            await self.reaches("get answered")
            await sink.send_all(last)


async def _head(stream: trio.SocketStream) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        more = await stream.receive_some(1)
        if not more:
            raise trio.BrokenResourceError
        found += more
    return found


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


async def _exactly(stream: trio.SocketStream, length: int) -> bytes:
    found = b""
    while len(found) < length:
        more = await stream.receive_some(length - len(found))
        if not more:
            raise trio.BrokenResourceError
        found += more
    return found


@dataclass
class Relay:
    """The relay, which is started again when it was killed: at the same port, with what it had kept."""

    directory: Path
    port: int = field(default_factory=free_port)
    pid: int = 0
    starts: int = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        while True:
            options = ("--port", str(self.port), "--state", str(self.directory / "relay.db"))
            async with relay_process(*options, log_path=self.directory / "relay.log") as (child, _):
                self.pid = child.pid
                self.starts += 1
                if self.starts == 1:
                    task_status.started()
                await child.wait()


@asynccontextmanager
async def house(directory: Path) -> AsyncIterator[tuple[World, Relay]]:
    """A relay that comes back, and an agent that sends back what it is sent."""
    async with trio.open_nursery() as nursery:
        relay = Relay(directory)
        await nursery.start(relay.run)
        url = f"http://127.0.0.1:{relay.port}"
        async with RelayApi(url) as api:
            account = await api.add_agent("Filing")
            environment = environment_of(
                directory,
                url,
                account.agent_id,
                account.token,
                HASHEE_HANDLER=HANDLER,
                HASHEE_STRIKES="off",
                HASHEE_WORKERS="1",
            )
            made = World(directory, url, api, environment, [await make_person(url, "Ada")])
            async with agent(made):
                made.conversations[made.people[0]] = await made.people[0].meet(account.agent_id)
                await made.until_ready()
                async with connected(*made.people):
                    yield made, relay
        nursery.cancel_scope.cancel()


def gate_pid(made: World) -> int | None:
    """The file gate under the keeper, if one runs."""
    children = Path(f"/proc/{made.keeper_pid}/task/{made.keeper_pid}/children").read_text(encoding="utf-8").split()
    for pid in children:
        with contextlib.suppress(OSError):
            if b"hashee-agent: files" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


async def kill(made: World, relay: Relay, victim: str) -> None:
    """Kills a process. What starts it again is the house's own business."""
    match victim:
        case "worker":
            for pid in made.worker_pids():
                await made.kill(pid)
        case "gate":
            await made.kill(gate_pid(made))
        case "supervisor":
            await made.kill(made.supervisor_pid())
        case "redis":
            await made.kill(made.redis_pid())
        case "relay":
            await made.kill(relay.pid)


async def trial(steps: list[str], victims: list[str]) -> int:
    """Runs all of it; returns the exit status."""
    wrong = list[str]()
    with tempfile.TemporaryDirectory(prefix="f.") as folder:
        directory = Path(folder)
        async with house(directory) as (made, relay), trio.open_nursery() as nursery:
            await comes_back(made, content_of(10, 0), "first.txt")
            path = made.state_dir / "files.sock"
            behind = path.with_name("files.real.sock")
            path.rename(behind)
            tap = Tap(path, behind)
            listening = trio.socket.socket(trio.socket.AF_UNIX)
            await listening.bind(str(path))
            listening.listen(64)
            nursery.start_soon(trio.serve_listeners, tap.serve, [trio.SocketListener(listening)])
            for number, (victim, step) in enumerate((victim, step) for victim in victims for step in steps):
                wrong += await _one(made, relay, tap, victim=victim, step=step, number=number + 1)
            nursery.cancel_scope.cancel()
        wrong += [f"on the disk: {found}" for found in leaks(directory, (NEEDLE, b"secret-plan"))]
        (directory / "control.txt").write_bytes(content_of(1000, 0))
        if not list(leaks(directory, (NEEDLE,))):
            wrong.append("the search for what is readable finds nothing where something is")
    print("\n".join(wrong) or "all good")
    return 1 if wrong else 0


async def _one(made: World, relay: Relay, tap: Tap, *, victim: str, step: str, number: int) -> list[str]:
    """One kill at one step; returns what was wrong."""
    happened, starts = trio.Event(), relay.starts

    async def happens() -> None:
        await kill(made, relay, victim)
        happened.set()

    tap.step, tap.happens = step, happens
    tap.passed.clear()
    began = trio.current_time()
    wrong = list[str]()
    try:
        await comes_back(made, content_of(SIZE, number), f"secret-plan-{number}.txt")
    except (AssertionError, TimeoutError) as error:
        wrong.append(f"{victim} at {step}: {error or type(error).__name__}")
    if not happened.is_set():
        wrong.append(f"{victim} at {step}: the step was never reached")
    with waiting_for("everything to be back", AGAIN_SECONDS):
        while (victim == "relay" and relay.starts == starts) or not made.worker_pids():
            await trio.sleep(0.05)
    await made.until_ready()
    if left := spooled(made.state_dir):
        wrong.append(f"{victim} at {step}: left in the spool: {len(left)}")
    calls = " ".join(f"{name}×{tap.passed.count(f'{name} asked')}" for _, name in CALLS)
    print(
        f"{victim:>10} killed at {step:<18} {trio.current_time() - began:5.1f} s  {calls}  {'; '.join(wrong)}",
        flush=True,
    )
    return wrong


def main() -> int:
    """Reads the options and runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--step", action="append", choices=STEPS, help="only this one (several: again)")
    parser.add_argument("--victim", action="append", choices=VICTIMS, help="only this one (several: again)")
    options = parser.parse_args()
    return trio.run(trial, options.step or list(STEPS), options.victim or list(VICTIMS))


if __name__ == "__main__":
    sys.exit(main())
