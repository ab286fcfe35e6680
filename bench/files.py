"""A file of 100 MB there and back through worker and file gate, beside a bare copy to and from the same relay in the same run; and the memory that it takes.

A turn is: bare copy in and out, then a person's file that a worker reads and one that it sends. Medians of the turns. Memory is the peak (VmHWM, reset
before each file) above what the process held before its first file; the gate begins with the first one, so its idle is after a small one.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from bench._children import BenchmarkFailed, family
from sandbox.api import RelayApi
from sandbox.children import relay_process, running
from sandbox.people import Person, connected, make_person
from sandbox.stage import agent_environment, free_port, until_ready

MIB = 1 << 20
PIECE = 1 << 20
TURN_SECONDS = 300.0
MOST_ABOVE_IDLE_MIB = 24.0
LEAST_RATIO = 0.6
PROCESSES = {
    "worker": b"hashee-agent: worker",
    "gate": b"hashee-agent: files",
    "supervisor": b"hashee-agent: supervisor",
    "redis": b"redis-server",
}
Figures = dict[str, float]


class Bare:
    """Copies bytes to and from the relay, one connection, large pieces, nothing sealed."""

    def __init__(self, url: str, agent_id: str, token: str, conversation_id: str) -> None:
        self._at = urlsplit(url)
        self._agent_id = agent_id
        self._token = {"authorization": f"Bearer {token}"}
        self._conversation_id = conversation_id

    def copy(self, path: Path) -> Figures:
        """Seconds in and out. What is sent is hashed, as the relay asks for it, and what comes, as whoever trusts it has to."""
        size = path.stat().st_size
        about = {"filename": "f", "content_type": "x/y", "size": size, "conversation_id": self._conversation_id}
        began = time.perf_counter()
        upload = self._asked("POST", f"/agents/{self._agent_id}/files", about)["data"]["upload_id"]
        digest = hashlib.sha256()
        connection = self._open()
        connection.request(
            "PUT",
            f"/agents/{self._agent_id}/files/{upload}/upload",
            _pieces(path, digest),
            {**self._token, "content-length": str(size)},
        )
        connection.getresponse().read()
        connection.close()
        named = self._asked("POST", "/files/confirm", {"upload_id": upload, "sha256": digest.hexdigest()})
        sent = time.perf_counter()
        connection = self._open()
        connection.request("GET", f"/files/{named['data']['attachment_id']}", headers=self._token)
        answer, came = connection.getresponse(), hashlib.sha256()
        while piece := answer.read(PIECE):
            came.update(piece)
        connection.close()
        if came.digest() != digest.digest():
            raise BenchmarkFailed("the bare copy did not come back as it was")
        return {"out": sent - began, "in": time.perf_counter() - sent}

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._at.hostname or "", self._at.port, timeout=60, blocksize=PIECE)

    def _asked(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = self._open()
        connection.request(method, path, json.dumps(body), {**self._token, "content-type": "application/json"})
        answer = connection.getresponse().read()
        connection.close()
        told: dict[str, Any] = json.loads(answer)
        return told


def _pieces(path: Path, digest: Any) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            yield piece


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The figures, with the floor beside them."""
    parser = argparse.ArgumentParser(prog="python -m bench files")
    parser.add_argument("--mib", type=int, default=100, help="of the file")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    return trio.run(partial(_measured, options.mib, options.turns))


async def _measured(mib: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name:
        folder = Path(name)
        path = folder / "large.bin"
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        async with relay_process(log_path=folder / "relay.log") as (_, url), RelayApi(url) as api:
            account = await api.add_agent("Files")
            port = free_port()
            environment = agent_environment({**os.environ}, url, account, folder, port)
            environment |= {
                "HASHEE_SEND_RATE": "0",
                "HASHEE_HANDLER": "bench._files_agent:agent",
                "HASHEE_WORKERS": "1",
                "BENCH_FILE": str(path),
            }
            up = [sys.executable, "-m", "supervisor", "up"]
            async with running(
                "agent", up, log_path=folder / "agent.log", environment=environment, stop_seconds=60
            ) as agent:
                await until_ready(f"http://127.0.0.1:{port}", agent, 60)
                person = await make_person(url, "Ada")
                conversation = await person.meet(account.agent_id)
                async with connected(person):
                    idle = _rss(agent.pid)
                    await _turn(person, conversation, b"x", path)
                    idle = {**_rss(agent.pid), **idle}
                    bare = Bare(url, account.agent_id, account.token, conversation)
                    found = [
                        (
                            await trio.to_thread.run_sync(bare.copy, path),
                            await _with_peaks(agent.pid, person, conversation, path),
                        )
                        for _ in range(turns)
                    ]
    return _figures(mib, idle, found)


async def _with_peaks(pid: int, person: Person, conversation: str, path: Path) -> tuple[Figures, dict[str, float]]:
    """Seconds of one file there and one back, and the peak of each process meanwhile."""
    _reset_peaks(pid)
    seconds = await _turn(person, conversation, path, path)
    return seconds, {name: _status(process, "VmHWM") for name, process in _processes(pid).items()}


async def _turn(person: Person, conversation: str, source: bytes | Path, path: Path) -> Figures:
    before = len(person.transcript.heard(conversation))
    await person.send_file(conversation, source, name="large.bin")
    with trio.fail_after(TURN_SECONDS):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= before + 2)
    seconds: Figures = json.loads(person.transcript.heard(conversation)[-1])
    if isinstance(source, Path):
        heard = await person.read_file(person.files[-1])
        if hashlib.sha256(heard).digest() != _digest_of(path):
            raise BenchmarkFailed("the file did not come back as it was")
    return seconds


def _figures(
    mib: int, idle: dict[str, float], found: list[tuple[Figures, tuple[Figures, dict[str, float]]]]
) -> dict[str, Any]:
    bare = {way: statistics.median(one[way] for one, _ in found) for way in ("in", "out")}
    ours = {way: statistics.median(one[way] for _, (one, _) in found) for way in ("in", "out")}
    above = {name: round(max(peaks[name] for _, (_, peaks) in found) - idle[name], 1) for name in PROCESSES}
    ratios = {way: round(statistics.median(b[way] / o[way] for b, (o, _) in found), 2) for way in ("in", "out")}
    return {
        "mib": mib,
        "turns": len(found),
        "bare_mib_per_second": {way: round(mib / seconds, 1) for way, seconds in bare.items()},
        "ours_mib_per_second": {way: round(mib / seconds, 1) for way, seconds in ours.items()},
        "ratios": {**ratios, "wanted": LEAST_RATIO},
        "idle_mib": {name: round(value, 1) for name, value in idle.items()},
        "peak_above_idle_mib": {**above, "wanted_of_worker_and_gate": MOST_ABOVE_IDLE_MIB},
    }


def _processes(pid: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in family(pid):
        try:
            line = Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            continue
        found |= {
            name: one
            for name, title in PROCESSES.items()
            if title in line or (name == "redis" and b"valkey-server" in line)
        }
    return found


def _reset_peaks(pid: int) -> None:
    for process in _processes(pid).values():
        Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _rss(pid: int) -> dict[str, float]:
    return {name: _status(process, "VmRSS") for name, process in _processes(pid).items()}


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
