"""A file of 100 MB there and back through worker and file gate, beside bare copies to and from the same relay in the same run; and what it takes.

A turn is: each bare copy out and in, and a person's file that a worker reads into a file and one that it sends. Who begins changes from turn to turn:
what a copy has written, the kernel still carries to the disk beside the next one. Medians of the turns. Memory is the peak (VmHWM, reset before
each file) above what the process held before its first file; the gate begins with the first one, so its idle is after a small one.
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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2
import trio

from bench._children import BenchmarkFailed, cpu_seconds, family
from sandbox.api import RelayApi
from sandbox.children import relay_process, running
from sandbox.people import Person, connected, make_person
from sandbox.stage import agent_environment, free_port, until_ready
from workers.files.limits import MOST_DAILY_BYTES

MIB = 1 << 20
PIECE = 1 << 20
TURN_SECONDS = 300.0
MOST_ABOVE_IDLE_MIB = 24.0
LEAST_RATIO = 0.6
WAYS = ("out", "in")
PROCESSES = {
    "worker": b"hashee-agent: worker",
    "gate": b"hashee-agent: files",
    "supervisor": b"hashee-agent: supervisor",
    "redis": b"redis-server",
}
Figures = dict[str, float]


class Floor(NamedTuple):
    """A copy that people would write. `hashes`: it takes the SHA-256 of what comes, as whoever trusts it has to (pip, docker pull); what goes is
    hashed by all of them, since the relay asks for it.
    """

    library: str
    hashes: bool


FLOORS: Final = {
    "http.client, hashed": Floor("http.client", hashes=True),
    "http.client, not hashed": Floor("http.client", hashes=False),
    "httpx2, hashed": Floor("httpx2", hashes=True),
}
"""The first is what is compared with: pieces of 1 MiB, and hashed as ours is. http.client reads into the file's own piece; httpx2 is what people take."""
COMPARED: Final = "http.client, hashed"
OURS: Final = "ours"


class Bare:
    """Copies bytes from a file to the relay, and from there into another file; one connection each, nothing sealed."""

    def __init__(self, url: str, agent_id: str, token: str, conversation_id: str) -> None:
        self._url = url
        self._at = urlsplit(url)
        self._agent_id = agent_id
        self._token = {"authorization": f"Bearer {token}"}
        self._conversation_id = conversation_id

    def copy(self, path: Path, into: Path, floor: Floor) -> Figures:
        """Returns seconds in and out."""
        size = path.stat().st_size
        about = {"filename": "f", "content_type": "x/y", "size": size, "conversation_id": self._conversation_id}
        began = time.perf_counter()
        upload = self._asked("POST", f"/agents/{self._agent_id}/files", about)["data"]["upload_id"]
        digest = hashlib.sha256()
        self._put(floor, f"/agents/{self._agent_id}/files/{upload}/upload", _pieces(path, digest), size)
        named = self._asked("POST", "/files/confirm", {"upload_id": upload, "sha256": digest.hexdigest()})
        sent, came = time.perf_counter(), hashlib.sha256()
        with (
            into.open("wb", buffering=0) as file,
            self._got(floor, f"/files/{named['data']['attachment_id']}") as pieces,
        ):
            for piece in pieces:
                if floor.hashes:
                    came.update(piece)
                file.write(piece)
        took = time.perf_counter() - sent
        if _digest_of(into) != digest.digest() or (floor.hashes and came.digest() != digest.digest()):
            raise BenchmarkFailed("the bare copy did not come back as it was")
        return {"out": sent - began, "in": took}

    def _put(self, floor: Floor, path: str, pieces: Iterator[bytes], size: int) -> None:
        headers = {**self._token, "content-length": str(size)}
        if floor.library == "httpx2":
            httpx2.put(f"{self._url}{path}", content=pieces, headers=headers, timeout=60).raise_for_status()
            return
        with closing(self._open()) as connection:
            connection.request("PUT", path, pieces, headers)
            connection.getresponse().read()

    @contextmanager
    def _got(self, floor: Floor, path: str) -> Iterator[Iterator[bytes]]:
        if floor.library == "httpx2":
            with httpx2.stream("GET", f"{self._url}{path}", headers=self._token, timeout=60) as answer:
                yield answer.iter_raw()
            return
        with closing(self._open()) as connection:
            connection.request("GET", path, headers=self._token)
            answer = connection.getresponse()
            yield iter(partial(answer.read, PIECE), b"")

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._at.hostname or "", self._at.port, timeout=60, blocksize=PIECE)

    def _asked(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with closing(self._open()) as connection:
            connection.request(method, path, json.dumps(body), {**self._token, "content-type": "application/json"})
            told: dict[str, Any] = json.loads(connection.getresponse().read())
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
    if options.turns * options.mib * MIB > MOST_DAILY_BYTES:
        parser.error(
            f"one agent sends a gigabyte a day: at most {MOST_DAILY_BYTES // (options.mib * MIB)} turns of {options.mib} MiB"
        )
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
                "BENCH_INTO": str(folder / "came.bin"),
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

                    async def ours() -> tuple[Figures, Figures, Figures]:
                        return await _with_peaks(agent.pid, person, conversation, path)

                    async def copy(floor: Floor) -> Figures:
                        return await trio.to_thread.run_sync(bare.copy, path, folder / "bare.bin", floor)

                    found = [await _compared(number, ours, copy) for number in range(turns)]
    return _figures(mib, idle, found)


class Turn(NamedTuple):
    """`bare` and `ours`: seconds by direction, of each floor; `peaks` in MiB and `cpu` in seconds by process, of both directions of ours."""

    bare: dict[str, Figures]
    ours: Figures
    peaks: Figures
    cpu: Figures


async def _compared(
    number: int,
    ours: Callable[[], Awaitable[tuple[Figures, Figures, Figures]]],
    copy: Callable[[Floor], Awaitable[Figures]],
) -> Turn:
    """A turn, which another of them begins than began the one before."""
    names = [*FLOORS, OURS]
    first = number % len(names)
    copies: dict[str, Figures] = {}
    for name in names[first:] + names[:first]:
        if name == OURS:
            taken = await ours()
        else:
            copies[name] = await copy(FLOORS[name])
    return Turn(copies, *taken)


async def _with_peaks(pid: int, person: Person, conversation: str, path: Path) -> tuple[Figures, Figures, Figures]:
    """Seconds of one file there and one back, and the peak and the CPU of each process meanwhile."""
    _reset_peaks(pid)
    before = {name: cpu_seconds([process]) for name, process in _processes(pid).items()}
    seconds = await _turn(person, conversation, path, path)
    processes = _processes(pid)
    peaks = {name: _status(process, "VmHWM") for name, process in processes.items()}
    return seconds, peaks, {name: cpu_seconds([one]) - before[name] for name, one in processes.items()}


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


def _figures(mib: int, idle: dict[str, float], found: list[Turn]) -> dict[str, Any]:
    def rate(seconds: list[float]) -> float:
        return round(mib / statistics.median(seconds), 1)

    def ratios(floor: str) -> dict[str, float]:
        return {way: round(statistics.median(one.bare[floor][way] / one.ours[way] for one in found), 2) for way in WAYS}

    above = {name: round(max(one.peaks[name] for one in found) - idle[name], 1) for name in PROCESSES}
    return {
        "mib": mib,
        "turns": len(found),
        "bare_mib_per_second": {
            floor: {way: rate([one.bare[floor][way] for one in found]) for way in WAYS} for floor in FLOORS
        },
        "ours_mib_per_second": {way: rate([one.ours[way] for one in found]) for way in WAYS},
        "ratios": {floor: ratios(floor) for floor in FLOORS},
        "wanted": {"ratio": LEAST_RATIO, "to": COMPARED, "peak_above_idle_mib": MOST_ABOVE_IDLE_MIB},
        "cpu_seconds_there_and_back": {
            name: round(statistics.median(one.cpu[name] for one in found), 2) for name in PROCESSES
        },
        "idle_mib": {name: round(value, 1) for name, value in idle.items()},
        "peak_above_idle_mib": above,
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
