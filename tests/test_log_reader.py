"""Whoever reads the log stalls or goes away: messages are answered all the same, by handlers too that print and log."""

import os
from pathlib import Path

import trio

from host.log_stream import LINES_LOST
from supervisor.control.keeper_link import STACKS
from tests.world import UP, world

HANDLER = """
import logging
import sys
from workers import Agent

agent = Agent()


@agent.on_message()
async def answer(message, chat):
    print("`" * 300_000)
    print("e" * 300_000, file=sys.stderr)
    logging.getLogger("owner").warning("w" * 300_000)
    await chat.reply(f"echo: {message.text}")
"""
PRINTED_CHARS = 300_000


async def test_a_log_that_nobody_reads_stops_no_message_and_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(HANDLER, encoding="utf-8")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    program = ("sh", "-c", f'cd {tmp_path}; exec "$0" "$@" >{fifo} 2>&1', *UP)
    settings = {"HASHEE_HANDLER": "chatty:agent", "PYTHONPATH": str(Path(__file__).parents[1])}
    async with world(tmp_path, program=program, HASHEE_LOG_LEVEL="debug", HASHEE_WORKERS="1", **settings) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        wanted: list[str] = []

        async def are_answered(*texts: str) -> None:
            for text in texts:
                await ada.say(conversation, text)
                wanted.append(f"echo: {text}")
            await w.all_answered({ada: wanted})

        await are_answered("one", "two", "three", "four", "five")
        await w.kill(w.supervisor_pid())
        await are_answered("after a kill, which the keeper wants to tell of")

        os.close(reading)  # broken pipe from here on
        await are_answered("six", "seven")
        await w.kill(w.worker_pids()[0])
        await w.kill(w.supervisor_pid())
        await are_answered("after two more")

        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        heard = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, reading, heard)
            await are_answered("eight")
            # Others write to the same pipe: the printed line comes in pieces of whatever room there was.
            await w.until(lambda: LINES_LOST.encode() in heard and heard.count(b"`") >= PRINTED_CHARS)
            nursery.cancel_scope.cancel()
        os.close(reading)
        assert w.up is not None
        assert w.up.exit_code is None


async def collect(descriptor: int, heard: bytearray) -> None:
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        heard += os.read(descriptor, 1 << 20)


async def test_closed_standard_streams_are_done_without(tmp_path: Path) -> None:
    program = ("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *UP)
    async with world(tmp_path, program=program) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "hello")
        await w.all_answered({ada: ["echo: hello"]})
        for pid in (w.keeper_pid, *w.worker_pids()):
            assert [target(pid, number) for number in (0, 1)] == [os.devnull] * 2
        assert target(w.supervisor_pid(), STACKS).startswith("pipe:")
        assert target(w.supervisor_pid(), 1) == os.devnull
        assert target(w.keeper_pid, 2) == os.devnull


def target(pid: int | None, descriptor: int) -> str:
    return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
