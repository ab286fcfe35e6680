"""`hashee-agent quarantine`, `dead` and `trace` on a store whose agent does not run: what they say, and what they never say."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from bus.records.records import SCHEMA_VERSION, OutboxRecord
from bus.records.sealing import StoreKeys
from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.seal import StoreSeal
from bus.steps.store import Arrival, InboundStore, Source
from bus.transport.client import open_redis
from crypto.strict_base64 import encode
from supervisor.relay.frames import MessageNew
from supervisor.relay.frames import encode as encode_frame
from tests.bus.builders import job_of
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.running import NAMES, environ_of, run

SECRET = bytes(range(32))
PERSON = "person\x1b[2J"  # a sender's name is a stranger's word
CONVERSATION = "conversation"
Result = subprocess.CompletedProcess[str]


class House:
    """A store, and the commands on it."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._environ = environ_of(directory, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=encode(SECRET))
        self.url = url

    def run(self, *arguments: str) -> Result:
        return run(*arguments, environ=self._environ, cwd=self._directory)

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json").stdout)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[InboundStore, StoreKeys]]:
        async with open_redis(self.url) as client:
            keys = await StoreSeal(client, NAMES).adopt(SECRET)
            yield InboundStore(client, NAMES.agent_id, "supervisor-1"), keys

    async def wanted(self) -> list[str]:
        async with self.open() as (store, _):
            return sorted(await Quarantine(store.client, NAMES).wanted())

    async def quarantine(self, seq: int, reason: str, plaintext: bytes = b"") -> None:
        message_id = f"m{seq}"
        frame = MessageNew(CONVERSATION, message_id, PERSON, "human", "text", "cipher", seq, "2026-01-01T00:00:00Z")
        arrival = Arrival(
            conversation_id=CONVERSATION,
            source=Source.POLL,
            seq=seq,
            signed_id=b"",
            message_ms=0,
            message_id=message_id,
            received_ms=1,
        )
        async with self.open() as (store, keys):
            sealed = keys.state.seal(plaintext, "quarantine", NAMES.agent_id, message_id) if plaintext else b""
            await store.quarantine(
                arrival, reason=reason, frame=encode_frame(frame).encode(), plaintext=sealed, sender_id=PERSON
            )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with redis_server(tmp_path) as url:
        yield House(tmp_path, url)


def test_the_quarantine_is_listed_shown_marked_and_dropped(house: House) -> None:
    async def fill() -> None:
        await house.quarantine(1, "no_grant")
        await house.quarantine(2, "bad_payload", b"\x1b[31mthe particular words")
        await house.quarantine(3, "no_grant")

    trio.run(fill)
    listed = house.run("quarantine", "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["m1", "m2", "m3"]
    assert "\x1b" not in listed.stdout
    rows = house.json("quarantine", "list", "--reason", "no_grant")
    assert isinstance(rows, list)
    assert [row["message_id"] for row in rows] == ["m1", "m3"]

    shown = house.run("quarantine", "show", "m2")
    assert "particular" not in shown.stdout + shown.stderr
    opened = house.run("quarantine", "show", "m2", "--plaintext")
    assert "the particular words" in opened.stdout
    assert ("\x1b" in opened.stdout, "WARNING" in opened.stderr) == (False, True)
    sealed = house.run("quarantine", "show", "m1", "--plaintext")
    assert (sealed.returncode, "never decrypted" in sealed.stderr, "relation" in sealed.stderr) == (1, True, True)

    marked = house.run("quarantine", "retry", "--reason", "no_grant")
    assert "2 to be tried again; no supervisor runs now" in marked.stdout
    assert trio.run(house.wanted) == ["m1", "m3"]
    assert house.run("quarantine", "retry", "m1", "m9").returncode == 1
    for nobodys in (("--sender", "somebody else"), ("--older-than", "1h")):
        assert house.json("quarantine", "list", *nobodys) == []
    for everybodys in (("--sender", PERSON), ("--older-than", "0s"), ("--sender", PERSON, "--older-than", "0")):
        listed_again = house.json("quarantine", "list", *everybodys)
        assert isinstance(listed_again, list)
        assert len(listed_again) == 3
    assert house.run("quarantine", "drop", "--older-than", "soon").returncode == 2
    assert house.run("quarantine", "drop", "m1", "--sender", PERSON).returncode == 2
    assert house.run("quarantine", "retry").returncode == 2

    unasked = house.run("quarantine", "drop", "m1")
    assert (unasked.returncode != 0, "lost for good" in unasked.stderr) == (True, True)
    assert "3 dropped" in house.run("quarantine", "drop", "--all", "--yes").stdout
    assert house.json("quarantine", "list") == []
    assert trio.run(house.wanted) == []
    assert "dropped for good" in house.run("trace", "m1").stdout


def test_dead_letters_are_listed_shown_brought_back_and_dropped(house: House) -> None:
    async def fill() -> None:
        async with house.open() as (store, _):
            sent = OutboxRecord(SCHEMA_VERSION, "cmid", CONVERSATION, "text", "bytes", None, "h2a", "text", 1)
            for record, why, answers in (
                (job_of(1), "timeout", ""),
                (msgspec.msgpack.encode(sent), "refused_413", "m1 0"),
                (b"damaged", "unreadable_record", ""),
            ):
                fields = ("r", record, "why", why, "a", 1, "d", 1, "at", 1, "p", "0 1", "w", answers)
                await store.client.command("XADD", NAMES.dead, "*", *fields)
            await store.client.command("HSET", NAMES.conversation(CONVERSATION), "reply", "sent")

    trio.run(fill)
    rows = house.json("dead", "list")
    assert isinstance(rows, list)
    assert [(row["kind"], row["message_id"]) for row in rows] == [
        ("job", "conversation-1"),
        ("send", "m1"),
        ("unreadable", None),
    ]
    job, send, damaged = [str(row["id"]) for row in rows]
    assert "0" in house.run("dead", "show", job).stdout
    assert "ciphertext" in house.run("dead", "show", send, "--content").stderr
    assert house.run("dead", "show", "1-1").returncode == 1
    assert house.run("dead", "show", "nonsense").returncode == 1

    tried = house.run("dead", "retry", "--all")
    assert (tried.returncode, "1 on their way again; no supervisor runs now" in tried.stdout) == (1, True)
    assert f"{send} stays for now: another reply of its conversation" in tried.stderr
    assert f"{damaged} is not readable" in tried.stderr
    assert "1 dropped" in house.run("dead", "drop", damaged, "--yes").stdout

    async def left() -> list[str]:
        async with house.open() as (store, _):
            return [letter.id async for letter in DeadLetters(store.client, NAMES).all()]

    assert trio.run(left) == [send]
    assert "dead letter tried again" in house.run("trace", "conversation-1").stdout


def test_what_the_ledger_does_not_know_is_said_with_its_bounds(house: House) -> None:
    async def forget() -> None:
        await house.quarantine(1, "no_grant")
        async with house.open() as (store, _):
            await store.client.command("DEL", NAMES.ledger)

    unknown = house.run("trace", "never-heard-of")
    assert (unknown.returncode, "7 days" in unknown.stderr, "200,000 entries" in unknown.stderr) == (1, True, True)
    trio.run(forget)
    assert "hashee-agent quarantine show m1" in house.run("trace", "m1").stderr


async def test_what_was_only_noted_as_old_is_listed_when_it_is_asked_for(house: House) -> None:
    assert "no old message" in (await trio.to_thread.run_sync(house.run, "quarantine", "list", "--old")).stderr
    arrival = Arrival(
        conversation_id=CONVERSATION,
        source=Source.POLL,
        seq=7,
        signed_id=b"",
        message_ms=0,
        message_id="m7\x1b",
        received_ms=1,
    )
    async with house.open() as (store, _):
        await store.note_old(arrival, "no_session")

    def commands() -> None:
        [noted] = cast("list[dict[str, object]]", house.json("quarantine", "list", "--old"))
        assert {**noted, "since_ms": 0} == {
            "message_id": "m7\x1b",
            "conversation_id": CONVERSATION,
            "seq": 7,
            "since_ms": 0,
        }
        said = house.run("quarantine", "list", "--old").stdout
        assert "m7\\x1b  seq 7  in conversation  since " in said
        assert "no old message" in house.run("quarantine", "list", "--old", "--older-than", "1h").stderr
        refused = house.run("quarantine", "list", "--old", "--reason", "no_session")
        assert (refused.returncode, "neither reason nor sender is kept" in refused.stderr) == (2, True)
        assert "nothing is in quarantine" in house.run("quarantine", "list").stderr
        again = house.run("quarantine", "retry", "m7\x1b")
        assert "1 only noted as old, to be asked for at the relay again; no supervisor runs now" in again.stdout
        assert "what was answered before is not answered again" in again.stdout
        unknown = house.run("quarantine", "retry", "m7\x1b", "m9")
        assert (unknown.returncode, "no message m9 is in quarantine" in unknown.stderr) == (1, True)

    await trio.to_thread.run_sync(commands)
