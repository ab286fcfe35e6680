"""A full disk, seen by a handler: it has a name, is logged and counted, people hear of it, and nothing is left or lost beside."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from bus.files.calls import CallFailure
from bus.steps.policies import APOLOGY
from tests.bus.builders import CONVERSATION
from tests.bus.scenes import MemoryScene
from tests.workers.files.builders import FaultyGate
from tests.workers.files.full_disk import FITS, ROOM_BYTES, Played, play
from tests.workers.stage import Stage
from workers import Agent, Chat, File
from workers.files.files import FileWay
from workers.files.spool import Spool

ROOT = Path(__file__).parents[3]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond it, as by `ulimit -f`; nor is the part of a compiled module kept that could be written."""
    writes_bytecode, sys.dont_write_bytecode = not sys.dont_write_bytecode, True
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = not writes_bytecode


def check(played: Played, why: str) -> None:
    assert played.heard["send"] == ["here it comes", APOLOGY], "what it had said before stands there once"
    assert played.heard["catch"] == ["small.txt"], "a handler may catch it, and there is room again"
    assert played.heard["save"] == [APOLOGY]
    [not_saved] = played.heard["save and catch"]
    assert not_saved.startswith(f"not saved: the file cannot be saved: {why} (")
    assert played.heard["save what fits"] == ["saved"]
    assert sorted(played.dead) == ["file_not_saved", "spool_full"]
    failures = {name: count for name, count in played.counted.items() if "failures" in name}
    assert failures == {"worker_file_failures out spool_full": 5, "worker_file_failures in file_not_saved": 5}, (
        "four tries, and the one that was caught"
    )
    assert played.counted["worker_files out"] == 1
    logged = "\n".join(played.logged)
    for name in ("SpoolFull", "FileNotSaved"):
        assert name in logged
    assert logged.count(why) >= 8, "each try says why"
    assert played.left == ["kept.bin: 11", f"spool/sent-today.json: {len(played.day)}"]
    assert f'"bytes":{len(FITS)}' in played.day, "what was not sent is not counted against the day"


async def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    with files_of_at_most(ROOM_BYTES):
        played = await play(tmp_path)
    check(played, "File too large")


def test_a_disk_without_room(tmp_path: Path) -> None:
    """A file system of a mebibyte in a namespace of its own, which needs no rights where the machine allows such."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare: apt-get install util-linux")
    mounted = f"mount -t tmpfs -o size={ROOM_BYTES} full {tmp_path} && exec "
    script = f"{mounted}{sys.executable} -m tests.workers.files.full_disk {tmp_path}"
    probe = subprocess.run(
        [unshare, "-Urm", "sh", "-c", f"{mounted}true"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # it may speak the locale's language, in its encoding
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"this machine allows no file system of one's own: {probe.stderr.strip()}")
    done = subprocess.run(
        [unshare, "-Urm", "sh", "-c", script], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    check(msgspec.json.decode(done.stdout, type=Played), "No space left on device")


def spoil(spool: Path) -> None:
    [spooled] = spool.glob("*.sealed")
    spooled.write_bytes(bytes(spooled.stat().st_size))


async def test_a_message_that_is_brought_back_after_a_power_cut_sends_its_file_anew_and_that_is_counted(
    tmp_path: Path,
) -> None:
    agent, gate, counted = Agent(), FaultyGate(), list[str]()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        await chat.reply(File(FITS, name="a.txt"))

    gate.fail("put", CallFailure.REFUSED, retry=False)
    files = FileWay(
        gate, Spool(tmp_path), lambda metric, _value, labels: counted.append(f"{metric} {labels.get('reason')}")
    )
    stage = Stage(MemoryScene(), agent, files=files)
    assert [one.text for one in await stage.say("go")] == [APOLOGY]
    spoil(tmp_path)
    [said] = await stage.retry_dead()
    [attachment] = msgspec.convert(said.reply.payload["attachments"], list[dict[str, object]])
    assert gate.content_of(attachment, CONVERSATION) == FITS
    assert counted == [
        *("worker_file_failures file_refused", "worker_file_failures spool_spoiled"),
        *("worker_file_bytes None", "worker_files None"),
    ]
