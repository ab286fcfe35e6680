"""The file gate as a process: what it holds while 100 MB pass through it, and what its death costs at every step of a transfer."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from bus.files import calls
from bus.files.proofs import Call
from crypto.files import MAX_FILE_BYTES, sealed_size
from supervisor.files.key_file import write_files_key
from tests.sandbox.relay import Talk, talk
from tests.supervisor.files.calling import KEY, Answer, Caller, called, listening
from tests.waiting import waiting_for

pytestmark = pytest.mark.long

MIB = 1 << 20
SEALED = os.urandom(MIB) * 8


class Process:
    """A gate's process and the socket that outlives it; `start` starts another after a kill, as a keeper does."""

    def __init__(self, it: Talk, state_dir: Path, listener: socket.socket) -> None:
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(state_dir),
            "HASHEE_AGENT_ID": it.agent.agent_id,
            "HASHEE_AGENT_TOKEN": it.agent.token,
            "HASHEE_BASE_URL": it.url,
            "HASHEE_STATE_DIR": str(state_dir),
        }
        self._listener = listener
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        command = [sys.executable, "-P", "-m", "supervisor", "files", "--keeper-fd", str(descriptor)]
        self.process = subprocess.Popen(
            command, env=self._environ, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory_bytes(self, which: str) -> int:
        """VmRSS, or VmHWM: the most there ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@asynccontextmanager
async def gate_process(tmp_path: Path) -> AsyncIterator[tuple[Caller, Process]]:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    write_files_key(state_dir, KEY)
    path = state_dir / "files.sock"
    async with talk(tmp_path) as (it, api):
        with listening(path) as listener:
            running = Process(it, state_dir, listener)
            try:
                async with called(path, it, api, state_dir) as caller:
                    yield caller, running
            finally:
                running.kill()


async def test_100_mb_pass_both_ways_in_bounded_memory(tmp_path: Path) -> None:
    size = sealed_size(MAX_FILE_BYTES)
    piece, digest = os.urandom(MIB), hashlib.sha256()

    async def pieces() -> AsyncIterator[bytes]:
        left = size
        while left:
            part = piece[: min(left, MIB)]
            digest.update(part)
            yield part
            left -= len(part)

    async with gate_process(tmp_path) as (caller, running):
        await caller.upload(SEALED)
        idle_bytes = running.memory_bytes("VmRSS")
        announced = await caller.announce(size)
        target, ticket = calls.upload_path(announced["upload_id"]), announced["ticket"]
        headers = {
            calls.PROOF_HEADER: caller.proof(Call("PUT", target, size, ticket)),
            calls.TICKET_HEADER: ticket,
            "content-length": str(size),
        }
        put = await caller.client.put(target, content=pieces(), headers=headers)
        assert put.json() == {"received": size}
        stats = (await caller.api.stats()).total
        assert stats["files.bytes_in"] == size + len(SEALED)
        confirmed = await caller.confirm_hash(announced["upload_id"], digest.hexdigest())
        got = 0
        target = calls.file_target(confirmed["attachment_id"], size)
        proved = {calls.PROOF_HEADER: caller.proof(Call("GET", target, 0))}
        async with caller.client.stream("GET", target, headers=proved) as answer:
            async for part in answer.aiter_raw():
                got += len(part)
        assert got == size
        assert running.memory_bytes("VmHWM") - idle_bytes <= 24 * MIB


async def test_a_gate_that_dies_at_any_step_costs_one_retry(tmp_path: Path) -> None:
    async with gate_process(tmp_path) as (caller, running):

        async def killed_during(call: Callable[[], Awaitable[Answer]], *, moved: str) -> None:
            """Kills the gate in the middle of a slow transfer; the caller sees a connection that was cut."""
            await caller.api.fault("file_slow", delay_seconds=0.05)
            before = (await caller.api.stats()).total.get(moved, 0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_kill_when_under_way, caller, running)
                with pytest.raises(httpx2.TransportError):
                    await call()
            running.start()
            assert (await caller.api.stats()).total.get(moved, 0) == before

        announced = await caller.announce(len(SEALED))
        running.kill()  # the ticket outlives it
        running.start()
        await killed_during(lambda: caller.put(announced, SEALED), moved="files.uploaded")
        assert (await caller.put(announced, SEALED)).status == 200
        running.kill()
        running.start()
        confirmed = await caller.confirm(announced, SEALED)
        running.kill()  # its answer was lost, say
        running.start()
        attachment_id = (await caller.confirm(announced, SEALED))["attachment_id"]
        assert attachment_id == confirmed["attachment_id"]
        await killed_during(lambda: caller.get(attachment_id, len(SEALED)), moved="files.confirmed")
        assert (await caller.get(attachment_id, len(SEALED))).body == SEALED
        stats = (await caller.api.stats()).total
        assert (stats["files.announced"], stats["files.uploaded"]) == (1, 1)
        assert 'hashee_file_transfers_total{direction="in"} 1.0' in (await caller.client.get("/metrics")).text


async def test_a_gate_that_is_told_to_leave_ends_its_transfer_first(tmp_path: Path) -> None:
    async with gate_process(tmp_path) as (caller, running):
        announced = await caller.announce(len(SEALED))
        await caller.api.fault("file_slow", delay_seconds=0.01)
        async with trio.open_nursery() as nursery:
            answers: list[Answer] = []

            async def put() -> None:
                answers.append(await caller.put(announced, SEALED))

            nursery.start_soon(put)
            await _until_under_way(caller)
            running.process.send_signal(signal.SIGTERM)
        assert [answer.status for answer in answers] == [200]
        assert await trio.to_thread.run_sync(running.process.wait) == 0


async def _kill_when_under_way(caller: Caller, running: Process) -> None:
    await _until_under_way(caller)
    running.kill()


async def _until_under_way(caller: Caller) -> None:
    with waiting_for("a transfer to be under way", 20):
        while not re.search(r"hashee_file_under_way\S+ 1\.0", (await caller.client.get("/metrics")).text):
            await trio.sleep(0.005)
