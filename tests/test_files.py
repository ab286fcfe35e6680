"""Files through the whole house: relay, keeper, gate, supervisor, worker and Redis as processes; a person sends one and it comes back."""

import hashlib
import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.commands import run_command
from tests.files_world import HANDLER, NEEDLE, SECONDS, comes_back, content_of, leaks, spooled
from tests.waiting import waiting_for
from tests.world import UP, World, world

MIB = 1024 * 1024


@pytest.mark.long
async def test_a_file_comes_back_and_is_nowhere_in_the_clear(tmp_path: Path) -> None:
    name = "secret-plan.txt"
    async with world(tmp_path, HASHEE_HANDLER=HANDLER, HASHEE_FSYNC="always") as it:
        for seed, size in enumerate((0, 1, 3 * MIB + 5)):
            await comes_back(it, content_of(size, seed), name)
        await by_a_form(it, content_of(MIB, 3), name)
        needles = (NEEDLE, b"secret-plan")
        assert list(leaks(it.directory, needles)) == []
        assert spooled(it.state_dir) == []
        metrics = it.page("/metrics")
        looked = await trio.to_thread.run_sync(partial(run_command, "doctor", "--json", environ=it.environment))
        found = {f"{one['subject']}: {one['name']}": one["verdict"] for one in json.loads(looked.stdout)["findings"]}
        for name in ("file gate: way", "file gate: key", "clock: file gate", "spool: folder", "spool: files"):
            assert found[name] == "ok", looked.stdout
        (tmp_path / "control").mkdir()
        (tmp_path / "control" / "plan.txt").write_bytes(content_of(100, 1))
        assert list(leaks(it.directory, needles)) == [f"plan.txt: {NEEDLE[:20]!r}"]
    for line in ('worker_files_total{direction="in"} 7.0', 'worker_files_total{direction="out"} 3.0'):
        assert line in metrics


async def by_a_form(it: World, content: bytes, name: str) -> None:
    """A person fills in a form with a file, and the handler has read it."""
    [person] = it.people
    conversation = it.conversations[person]
    await person.say(conversation, "/form")
    with waiting_for("the form", SECONDS):
        await person.transcript.until(lambda: bool(person.cards))
    [card_id] = person.cards
    file = await person.attach(conversation, content, name=name)
    values = {"title": "Plan", "file": file.attachment_id}
    await person.answer(conversation, card_id, {"values": values}, files=[file])
    said = f"Plan: {hashlib.sha256(content).hexdigest()}"
    with waiting_for("the answer to the form", SECONDS):
        await person.transcript.until(lambda: said in person.transcript.heard(conversation))


PASSING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("file_500", {"count": 3}),
    ("file_429", {"count": 2, "retry_after": 0.2}),
    ("file_cut", {"count": 3}),
    ("file_expired", {"count": 1}),
    ("file_forget", {"count": 1}),
)
FOR_GOOD: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("file_spoil", {}, 'direction="in",reason="file_broken_changed"'),
    ("file_wrong_size", {}, 'direction="in",reason="file_broken_size"'),
    ("file_429", {"reason": "DAILY_LIMIT"}, 'reason="file_daily_limit"'),
)
APOLOGY = "sorry"


@pytest.mark.long
async def test_whatever_the_relay_does_to_a_file_it_comes_back_or_is_given_up_by_name(tmp_path: Path) -> None:
    """What passes costs a while; what does not is a dead letter with its reason, counted, and the next file comes back."""
    async with world(tmp_path, HASHEE_HANDLER=HANDLER) as it:
        [person] = it.people
        conversation = it.conversations[person]
        for seed, (kind, how) in enumerate(PASSING):
            await it.api.fault(kind, **how)
            await comes_back(it, content_of(MIB + seed, seed), f"{kind}.txt")
        for kind, how, counted in FOR_GOOD:
            await it.api.fault(kind, count=1000, **how)
            before = len(person.transcript.heard(conversation))
            await person.send_file(conversation, content_of(100, 9), name=f"{kind}.txt")
            with waiting_for(f"the apology for {kind}", SECONDS):
                await person.transcript.until(
                    lambda before=before: len(person.transcript.heard(conversation)) > before  # type: ignore[misc]
                )
            [said] = person.transcript.heard(conversation)[before:]
            assert APOLOGY in said.lower()
            assert counted in it.page("/metrics"), kind
            await it.api.fault("clear")
            await comes_back(it, content_of(100, 10), "after.txt")
        assert spooled(it.state_dir) == []


@pytest.mark.long
async def test_a_spool_without_room_is_told_and_the_next_file_comes_back(tmp_path: Path) -> None:
    """The agent's spool is a file system of a mebibyte, in a namespace of its own."""
    spool = tmp_path / "small"
    spool.mkdir()
    room = in_a_namespace(f"mount -t tmpfs -o size={MIB} small {spool}")
    settings = {"HASHEE_SPOOL_DIR": str(spool / "spool"), "HASHEE_RETRY_SECONDS": "0.05"}
    async with world(tmp_path, program=(*room, *UP), HASHEE_HANDLER=HANDLER, **settings) as it:
        [person] = it.people
        conversation = it.conversations[person]
        for _ in range(2):
            before = len(person.transcript.heard(conversation))
            await person.send_file(conversation, content_of(3 * MIB, 1), name="large.txt")
            with waiting_for("the apology", SECONDS):
                await person.transcript.until(
                    lambda before=before: len(person.transcript.heard(conversation)) > before  # type: ignore[misc]
                )
            [said] = person.transcript.heard(conversation)[before:]
            assert APOLOGY in said.lower()
            await comes_back(it, content_of(MIB // 4, 2), "small.txt")
        metrics, log = it.page("/metrics"), it.log()
    assert 'worker_file_failures_total{direction="out",reason="spool_full"} 4.0' in metrics
    assert log.count("exception=SpoolFull") == 4
    assert f"there is no room for a sealed file in {spool}/spool: No space left on device" in log
    assert log.count("reason=spool_full") == 2


def in_a_namespace(does: str) -> tuple[str, ...]:
    """What stands before a command that is to run where this was done, seen by nobody else; it needs no rights where the machine allows such."""
    before = ("unshare", "-Urm", "sh", "-c", f'{does} && exec "$@"', "sh")
    try:
        subprocess.run((*before, "true"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"this machine allows no file system of one's own: {problem}")
    return before
