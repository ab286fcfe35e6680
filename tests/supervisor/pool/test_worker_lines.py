"""Real workers of another release than their supervisor: both ends of the pipe go on through what they do not know."""

import sys
from pathlib import Path

import pytest
import trio

from bus.records.control import Drain, Drained, DumpStacks, FromWorker, Ready, Stacks, encode, from_worker
from host.lines import LineReader
from supervisor.pool.process import ExitReason, Stage
from supervisor.pool.worker_order import spawn
from tests.bus.builders import open_bus
from tests.redis_server import redis_server
from tests.supervisor.pool.builders import QUICK, ask, order_of, running_worker, text_answer, until

# Becomes a worker of this release, once it has said what a later one may say.
NEWER = f"""#!{sys.executable}
import os, socket, sys
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
control.sendall(b'{{"type":"of_tomorrow","x":1}}\\n{{"type":"of_tomorrow","x":2}}\\n')
control.sendall(b'{{"type":"heartbeat","running":"a shape of tomorrow"}}\\n')
for _ in range(100):
    control.sendall(b"x" * 1_000_000)
control.sendall(b"\\n\\xff\\xfe\\n")
control.detach()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# Says half a line, and nothing more.
HALF = f"""#!{sys.executable}
import socket, sys, time
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
control.sendall(b'{{"type":"of_tomorrow"}}\\n{{"type":"heartb')
time.sleep(600)
"""


def executable(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return str(path)


async def test_a_newer_worker_takes_jobs_under_an_older_supervisor(tmp_path: Path) -> None:
    newer = executable(tmp_path / "python", NEWER)
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, running_worker(order_of(url, python=newer)) as worker:
            await ask(bus, "hello")
            assert await text_answer(bus) == "re: hello"
            await until(lambda: worker.process.stage is Stage.READY)
            assert worker.process.passed_over == 5
            tags = [entry["tag"] for entry in worker.lines.entries if "passed over" in str(entry["event"])]
            assert sorted(map(str, tags)) == ["heartbeat", "of_tomorrow", "too long", "without a tag"]
            worker.process.drain()
            await until(lambda: worker.exit)
    assert worker.exit is not None
    assert worker.exit.returncode == 0


async def test_a_worker_that_stops_within_a_line_is_ended_by_its_silence(tmp_path: Path) -> None:
    order = order_of("unix:///nowhere", python=executable(tmp_path / "python", HALF), times=QUICK)
    async with running_worker(order) as worker:
        await until(lambda: worker.exit)
    assert worker.exit is not None
    assert worker.exit.reason is ExitReason.SILENT
    assert worker.process.passed_over == 1


async def test_a_worker_obeys_a_newer_supervisor_through_all_that_it_does_not_know(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with redis_server(tmp_path) as url:
        worker = spawn(order_of(url), "worker-1", 1)
        heard: list[FromWorker] = []

        async def listen(stream: trio.SocketStream) -> None:
            lines: LineReader[FromWorker] = LineReader(from_worker, pytest.fail)
            while data := await stream.receive_some():
                heard.extend(lines.feed(bytes(data)))

        try:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(worker.control))
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(listen, stream)
                await until(lambda: any(isinstance(message, Ready) for message in heard))
                await stream.send_all(b'{"type":"of_tomorrow"}\n{"type":"of_tomorrow"}\n\xff\n')
                for _ in range(100):
                    await stream.send_all(b"x" * 1_000_000)
                await stream.send_all(b"\n" + encode(DumpStacks()))
                await until(lambda: any(isinstance(message, Stacks) for message in heard))
                further = encode(Drain()).replace(b"}", b',"of_tomorrow":1}')
                await stream.send_all(further[:7])
                await stream.send_all(further[7:])
            assert isinstance(heard[-1], Drained)
            assert await trio.to_thread.run_sync(worker.process.wait) == 0
        finally:
            worker.process.kill()
            worker.process.wait()
    said = [line for line in capfd.readouterr().err.splitlines() if "passed over" in line]
    assert [tag for line in said for tag in ("of_tomorrow", "without a tag", "too long") if tag in line] == [
        "of_tomorrow",
        "without a tag",
        "too long",
    ]
