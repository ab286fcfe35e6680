"""What of a store a backup holds: every kind of key has its line, everything that is to be saved is, and what moves meanwhile is not lost."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from bus.records.kinds import PLAIN_KINDS, SEALED_KINDS
from bus.records.records import decode_job_record
from bus.records.saved import KINDS, Fate, Saved, SavedConversation, Value, Waiting, pairs
from bus.transport.client import RedisClient, open_redis
from bus.whole import snapshot
from bus.whole.snapshot import Snapshot
from tests.bus.builders import CONVERSATION, Bus, arrival_of, job_of, open_bus, open_worker
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS
from tests.supervisor.cli.keys.builders import fill
from tests.supervisor.cli.keys.running import NAMES

CLASSES = (Fate.SAVED, Fate.WITH_CONVERSATION)


@pytest.mark.pure
def test_every_kind_of_key_has_its_line() -> None:
    assert KINDS.keys() == SEALED_KINDS | PLAIN_KINDS, (
        "bus/records/saved.py says of each kind what a backup does with it"
    )
    page = (Path(__file__).parents[3] / "docs" / "disaster.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(line.split("`")[1] for line in lines if line.split("`")[1] in KINDS) == sorted(KINDS)
    for line in lines:
        kind = line.split("`")[1]
        if kind in KINDS:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells == [f"`{kind}`", KINDS[kind].fate.value, KINDS[kind].why], (
                "docs/disaster.md says what bus/records/saved.py does"
            )


async def saved_of(reading: Snapshot) -> list[Saved]:
    async with aclosing(reading.everything()) as everything:
        return [saved async for saved in everything]


def keys_in(saved: list[Saved]) -> set[str]:
    """Which keys a backup holds something of."""
    found = set()
    for one in saved:
        if isinstance(one, Value):
            if one.parts:
                found.add(NAMES.of(one.kind, one.ids))
        elif isinstance(one, SavedConversation):
            parts = {
                "conv": one.row,
                "ids": one.ids,
                "taken": one.taken,
                "emitted": one.emitted or one.values,
                "waits": one.waits,
                "sent": one.sent,
                "load": one.load,
                "box": one.box,
                "parked": one.parked,
                "placed": one.placed,
                "together": one.together,
                "out": one.out,
                "state": one.state,
                "history": one.history,
            }
            found |= {NAMES.of(kind, one.conversation_id) for kind, part in parts.items() if part}
            found |= {NAMES.jobs} if one.job else set()
            found |= {NAMES.replies} if one.reply else set()
    return found


async def all_keys(client: RedisClient) -> set[str]:
    return {raw.decode() for raw in cast("list[bytes]", await client.command("KEYS", NAMES.pattern))}


async def test_of_a_store_with_everything_in_it_every_key_that_is_to_be_saved_is(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await fill(client, KEYS)
            await client.command("HSET", NAMES.notes("person"), "message-h", "1\x1f5\x1fbusy\x1f\x1fab")
            await client.command("ZADD", NAMES.old, 1, "busy\x1f1\x1fmessage-o")
            await client.command("SET", NAMES.first_sync, "ended")
            await client.command("ZADD", NAMES.taken("busy"), 7, 7)
            there = await all_keys(client)
            saved = await saved_of(Snapshot(client, NAMES))
            assert await all_keys(client) == there, "nothing is written"
    expected = {key for key in there if KINDS[NAMES.split(key)[0]].fate in CLASSES}
    assert keys_in(saved) == expected - {NAMES.load} | {NAMES.notes("person")}
    assert {NAMES.split(key)[0] for key in expected} >= {kind for kind, one in KINDS.items() if one.fate in CLASSES} - {
        "seal"
    }


async def test_what_is_used_up_is_read_before_what_it_becomes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await fill(client, KEYS)
            await client.command("HSET", NAMES.notes("person"), "message-h", "1\x1f5\x1fbusy\x1f\x1fab")
            saved = await saved_of(Snapshot(client, NAMES))
    kinds = [
        "conv" if isinstance(one, SavedConversation) else one.kind for one in saved if not isinstance(one, Waiting)
    ]
    first = {kind: kinds.index(kind) for kind in kinds}
    assert first["one_time_prekeys"] < first["session"] < first["held"] < first["conv"]
    assert max(first["quarantined"], first["dead"]) < first["conv"]
    assert len(kinds) - kinds[::-1].index("quarantined") > first["conv"], "what came meanwhile is read after them"


async def test_a_store_of_more_than_a_page_is_saved_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("PAGE", 3), ("SCAN_COUNT", 5), ("LETTERS_AT_ONCE", 2), ("CONVERSATIONS_AT_ONCE", 2)):
        monkeypatch.setattr(snapshot, name, size)
    many, counts = 13, defaultdict[str, set[str]](set)
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            for number in range(many):
                await client.command("HSET", NAMES.conversation(f"c{number}"), "next", 1)
                await client.command("HSET", NAMES.session("p", f"{number}"), "v", 1, "b", "x", "e", 0)
                await client.command("HSET", NAMES.quarantined(f"m{number}"), "at", number)
                await client.command("ZADD", NAMES.quarantine, number, f"m{number}")
                await client.command("XADD", NAMES.dead, f"{number + 1}-1", "r", "x")
                await client.command("XADD", NAMES.ledger, f"{number + 1}-1", "e", "x")
                await client.command("RPUSH", NAMES.grant_log, f"row {number}")
            for saved in await saved_of(Snapshot(client, NAMES)):
                if isinstance(saved, SavedConversation):
                    counts["conv"].add(saved.conversation_id)
                elif isinstance(saved, Value) and saved.shape != "hash":
                    counts[saved.kind] |= {
                        part.decode() for part in saved.parts if part.endswith(b"-1") or b"row" in part
                    }
                elif isinstance(saved, Value):
                    counts[saved.kind].add(saved.ids)
    assert {kind: len(found) for kind, found in counts.items() if len(found) > 1} == dict.fromkeys(
        ("conv", "session", "quarantined", "dead", "ledger", "grant_log"), many
    )


async def test_a_conversation_in_which_very_much_waits_is_read_in_parts(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await waiting_jobs(bus, 20)
            for seq in range(40, 51):
                await bus.client.command("ZADD", bus.keys.parked(CONVERSATION), seq, job_of(seq))
                await bus.client.command("RPUSH", bus.keys.out_box(CONVERSATION), f"reply {seq}")
            [whole] = await conversations(Snapshot(bus.client, bus.keys))
            assert isinstance(whole, SavedConversation)
            *parts, core = await conversations(Snapshot(bus.client, bus.keys, most_conversation_bytes=100))
    assert isinstance(core, SavedConversation)
    assert (core.box, core.parked, core.out) == ([], [], [])
    assert msgspec.structs.replace(core, box=whole.box, parked=whole.parked, out=whole.out) == whole
    for place, expected in (("box", whole.box), ("parked", whole.parked), ("out", whole.out)):
        pages = [part.parts for part in parts if isinstance(part, Waiting) and part.place == place]
        assert [word for page in reversed(pages) for word in page] == expected
        assert max(map(len, pages)) <= 2 * snapshot.LETTERS_AT_ONCE


async def test_while_workers_take_and_end_jobs_each_message_stands_somewhere(tmp_path: Path) -> None:
    """Taken in, and neither answered nor waiting nor running: that would be lost."""
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker, trio.open_nursery() as nursery:
            ended: set[str] = set()

            async def work() -> None:
                while True:
                    for job in await worker.take(1):
                        ended.add(job.job_id)
                        await worker.finish(job)

            nursery.start_soon(work)
            for seq in range(1, 60):
                await bus.store.accept(arrival_of(seq, seq - 1), job_of(seq))
                before = set(ended)
                for most_bytes in (1 << 20, 1):
                    found = await conversations(Snapshot(bus.client, bus.keys, most_conversation_bytes=most_bytes))
                    there = {job for saved in found for job in jobs_in(saved)}
                    assert {f"{CONVERSATION}-{number}" for number in range(1, seq + 1)} <= there | ended
                    assert not (there & before) or most_bytes == 1
            nursery.cancel_scope.cancel()


async def test_what_comes_into_a_large_conversation_while_it_is_read_stands_in_the_backup(tmp_path: Path) -> None:
    """Into the mailbox, to what is parked (between and below what was read), and behind what is to be said, more than a page."""
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            keys = bus.keys
            await waiting_jobs(bus, 20)
            for seq in range(40, 60, 2):
                await bus.client.command("ZADD", keys.parked(CONVERSATION), seq, job_of(seq))
                await bus.client.command("RPUSH", keys.out_box(CONVERSATION), f"reply {seq}")
            changes = {
                "box": lambda: bus.store.accept(arrival_of(21, 20), job_of(21)),
                "parked": lambda: bus.client.command(
                    "ZADD", keys.parked(CONVERSATION), 39, job_of(39), 45, job_of(45), 99, job_of(99)
                ),
                "out": lambda: bus.client.command(
                    "RPUSH", keys.out_box(CONVERSATION), *[f"reply {seq}" for seq in range(60, 80)]
                ),
            }
            saved = await read_while(bus, changes)
            [*parts, core] = saved
            assert isinstance(core, SavedConversation)
            assert dict(pairs(core.row))[b"next"] == b"22"
            there = {job for one in saved for job in jobs_in(one)}
            assert there == {f"{CONVERSATION}-{seq}" for seq in (*range(1, 22), *range(40, 60, 2), 39, 45, 99)}
            before = [one.parts for one in parts if isinstance(one, Waiting) and one.place == "out"]
            said = [record for page in reversed(before) for record in page] + core.out
            assert said == await bus.client.command("LRANGE", keys.out_box(CONVERSATION), 0, -1), "in its order"


@pytest.mark.parametrize("when", ["end", "together"], ids=["before the last page", "after the last page"])
async def test_what_is_to_be_said_first_and_comes_while_a_conversation_is_read_stays_the_first(
    tmp_path: Path, when: str
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            out_box = bus.keys.out_box(CONVERSATION)
            await waiting_jobs(bus, 2)
            await bus.client.command("RPUSH", out_box, *[f"reply {number}" for number in range(9)])
            await bus.client.command("RPUSH", bus.keys.together(CONVERSATION), job_of(3))

            async def offer() -> None:
                entry = cast(bytes, await bus.client.command("XADD", bus.keys.replies, "*", "r", "offer"))
                await bus.client.command("HSET", bus.keys.conversation(CONVERSATION), "reply", entry)
                await bus.client.command("LPUSH", out_box, "offer")

            saved = await read_while(bus, {when: offer})
            pages = [one.parts for one in saved if isinstance(one, Waiting) and one.place == "out"]
            assert pages[-1] == [b"offer"]
            assert isinstance(saved[-1], SavedConversation)
            assert saved[-1].out == []


async def test_what_leaves_a_list_while_it_is_read_hides_nothing_of_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            out_box = bus.keys.out_box(CONVERSATION)
            await waiting_jobs(bus, 2)
            await bus.client.command("RPUSH", out_box, *[f"reply {number}" for number in range(20)])

            async def go_on() -> None:
                await bus.client.command("LPOP", out_box, 7)
                await bus.client.command("RPUSH", out_box, *[f"reply {number}" for number in range(20, 26)])

            saved = await read_while(bus, {"out": go_on})
            pages = [one.parts for one in saved if isinstance(one, Waiting) and one.place == "out"]
            assert isinstance(saved[-1], SavedConversation)
            said = [record for page in reversed(pages) for record in page] + saved[-1].out
            assert said == [b"reply %d" % number for number in range(7, 26)]


async def read_while(bus: Bus, changes: Mapping[str, Callable[[], Awaitable[object]]]) -> list[Saved]:
    """A conversation in parts; each change is made after the first page of its place, one named `end` after the page with the first reply."""
    saved: list[Saved] = []
    left = dict(changes)
    reading = Snapshot(bus.client, bus.keys, most_conversation_bytes=100)
    async with aclosing(reading.everything()) as parts:
        async for part in parts:
            if not isinstance(part, Waiting | SavedConversation):
                continue
            saved.append(part)
            place = part.place if isinstance(part, Waiting) else ""
            if place in left:
                await left.pop(place)()
            elif isinstance(part, Waiting) and "end" in left and part.parts[0] == b"reply 0":
                await left.pop("end")()
    assert left == {}
    return saved


def jobs_in(saved: Saved) -> list[str]:
    if isinstance(saved, Waiting):
        records = saved.parts[::2] if saved.place in ("box", "parked") else []
    else:
        assert isinstance(saved, SavedConversation)
        assert bool(saved.job) == (b"entry" in saved.row[::2])
        records = [*saved.box[::2], *saved.parked[::2], *([dict(pairs(saved.job))[b"r"]] if saved.job else [])]
    return [decode_job_record(record).job_id for record in records]


async def waiting_jobs(bus: Bus, count: int) -> None:
    for seq in range(1, count + 1):
        await bus.store.accept(arrival_of(seq, seq - 1), job_of(seq))


async def conversations(reading: Snapshot) -> list[Saved]:
    return [saved for saved in await saved_of(reading) if isinstance(saved, Waiting | SavedConversation)]
