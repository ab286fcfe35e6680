"""A worker whose disk gets full: the real runner, real folders, and a gate in memory. `python -m tests.workers.files.full_disk FOLDER` plays it in a
folder that has little room, and prints what came of it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from bus.records.records import Payload
from tests.bus.builders import CONVERSATION
from tests.bus.scenes import MemoryScene
from tests.workers.stage import Stage
from workers import Agent, Chat, File, FileNotSaved, Message, SpoolFull
from workers.files.files import FileWay
from workers.files.memory import MemoryGate
from workers.files.spool import Spool

ROOM_BYTES = 1024 * 1024
TOO_MUCH = bytes(3 * ROOM_BYTES)
FITS = b"small enough"


class Played(msgspec.Struct):
    """What people heard of each, what was counted and logged, and what was left on the disk behind each."""

    heard: dict[str, list[str]]
    counted: dict[str, float]
    dead: list[str]
    logged: list[str]
    left: list[str]
    day: str


def agent_in(folder: Path) -> Agent:
    """Sends and saves files that are too large for the disk, and catches that or not."""
    agent = Agent()

    @agent.on_command("send")
    async def send(chat: Chat) -> None:
        await chat.reply("here it comes")
        await chat.reply(File(TOO_MUCH, name="large.bin", type="application/x-large"))

    @agent.on_command("catch")
    async def catch(chat: Chat) -> None:
        try:
            await chat.reply(File(TOO_MUCH, name="large.bin", type="application/x-large"))
        except SpoolFull:
            await chat.reply(File(FITS, name="small.txt"))

    @agent.on_message("file")
    async def save(message: Message, chat: Chat) -> None:
        [file] = message.files
        try:
            await file.save(folder / "kept.bin")
        except FileNotSaved as error:
            if message.payload.get("caught") is not True:
                raise
            await chat.reply(f"not saved: {error}")
        else:
            await chat.reply("saved")

    return agent


@dataclass
class Disk:
    folder: Path
    gate: MemoryGate = field(default_factory=MemoryGate)
    counted: dict[str, float] = field(default_factory=dict)

    def count(self, metric: str, value: float, labels: Mapping[str, str]) -> None:
        name = " ".join([metric, *labels.values()])
        self.counted[name] = self.counted.get(name, 0) + value

    def message(self, content: bytes, *, is_caught: bool) -> Payload:
        entry = self.gate.keep(content, CONVERSATION, name="in.bin", media_type="application/x-large")
        return {"type": "file", "attachment_id": entry["attachment_id"], "attachments": [entry], "caught": is_caught}

    @property
    def left(self) -> list[str]:
        return sorted(str(one.relative_to(self.folder)) for one in self.folder.rglob("*") if one.is_file())


async def play(folder: Path) -> Played:
    """Plays it in a folder with room for a mebibyte. What stood there before stays."""
    disk = Disk(folder)
    (folder / "kept.bin").write_bytes(b"from before")
    files = FileWay(disk.gate, Spool(folder / "spool"), disk.count)
    stage = Stage(MemoryScene(), agent_in(folder), files=files)
    heard = dict[str, list[str]]()

    async def keep(name: str, payload: Payload) -> None:
        said = await stage.send(payload)
        heard[name] = [one.text or str(one.reply.payload.get("filename")) for one in said]

    await keep("send", {"type": "text", "text": "/send"})
    await keep("catch", {"type": "text", "text": "/catch"})
    await keep("save", disk.message(TOO_MUCH, is_caught=False))
    await keep("save and catch", disk.message(TOO_MUCH, is_caught=True))
    left = [f"{name}: {(folder / name).stat().st_size}" for name in disk.left]
    assert (folder / "kept.bin").read_bytes() == b"from before"
    await keep("save what fits", disk.message(FITS, is_caught=False))
    assert (folder / "kept.bin").read_bytes() == FITS
    day = (folder / "spool" / "sent-today.json").read_text(encoding="utf-8")
    return Played(heard, disk.counted, await stage.dead(), stage.logged, left, day)


def main(folder: str) -> None:
    sys.stdout.write(msgspec.json.encode(trio.run(play, Path(folder))).decode())


if __name__ == "__main__":
    main(sys.argv[1])
