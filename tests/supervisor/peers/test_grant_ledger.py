"""The log of grants proves what was recorded: an entry that was changed, taken out or cut off is found, and nothing else is."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.records.keys import Keys
from bus.steps.vault import Vault
from bus.transport.client import RedisClient, open_redis
from supervisor.peers.grant_ledger import HEAD_FILE, GrantLedger
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS
from tests.supervisor.person import AGENT

NAMES = Keys(AGENT)
ADA, BEN = "ada", "ben"


@dataclass
class Scene:
    """One host's log, and the store that it is of."""

    client: RedisClient
    vault: Vault
    ledger: GrantLedger
    state_dir: Path

    async def change(self, *owners: str) -> None:
        for owner in owners:
            assert await self.ledger.put(owner, await self.vault.owner(owner), b"row", b"entry")

    async def keep(self) -> None:
        for key in (NAMES.grant_log, NAMES.grant_head):
            await self.client.command("COPY", key, f"kept:{key}")

    async def go_back(self) -> None:
        for key in (NAMES.grant_log, NAMES.grant_head):
            await self.client.command("COPY", f"kept:{key}", key, "REPLACE")

    def another_host(self) -> GrantLedger:
        return GrantLedger(self.vault, KEYS.ledger, self.state_dir / "another")


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            vault, state_dir = Vault(client, NAMES, KEYS.state), tmp_path / "state"
            yield Scene(client, vault, GrantLedger(vault, KEYS.ledger, state_dir), state_dir)


async def test_what_was_recorded_holds_for_its_own_host_and_for_a_new_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        assert await made.ledger.verify() is None
        await made.change(ADA, BEN, ADA)
        assert await made.ledger.verify() is None
        assert await made.another_host().verify() is None


async def test_a_change_of_a_row_that_has_changed_meanwhile_is_none(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        read = await made.vault.owner(ADA)
        await made.change(ADA)
        assert not await made.ledger.put(ADA, read, b"row", b"another entry")
        assert await made.ledger.verify() is None


async def test_an_entry_that_was_taken_out_or_is_another_is_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA, BEN, ADA)
        [_, second, _] = await entries(made)
        await made.client.command("LREM", NAMES.grant_log, 1, second)
        assert await made.ledger.verify() == "an entry of the grant log does not open"
        await made.client.command("DEL", NAMES.grant_log)
        await made.client.command("RPUSH", NAMES.grant_log, second)
        assert await made.ledger.verify() == "an entry of the grant log does not open"


async def test_a_head_that_is_not_the_logs_is_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA, BEN)
        await made.client.command("RPOP", NAMES.grant_log)
        assert await made.ledger.verify() == "the grant log does not hold from entry 1 on"


async def test_a_log_that_ends_before_what_this_host_wrote_is_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA)
        await made.keep()
        await made.change(BEN)
        await made.go_back()
        lost = await made.ledger.verify()
        assert lost is not None
        assert "has lost its tail" in lost
        assert await made.another_host().verify() is None, "who knows of no later head cannot tell"


async def test_a_head_in_the_state_directory_that_cannot_be_read_is_said_as_that_and_kept(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA)
        file = made.state_dir / HEAD_FILE
        whole = file.read_text(encoding="utf-8")
        for damaged in ("", whole[: len(whole) // 2], "\ufffd" * 64, whole.replace(whole[0], "x")):
            file.write_text(damaged, encoding="utf-8")
            assert await made.ledger.verify() == f"{file} cannot be read"
            assert file.read_text(encoding="utf-8") == damaged
        for make in (os.mkfifo, Path.mkdir):
            file.unlink()
            make(file)
            assert await made.ledger.verify() == f"{file} cannot be read"
        before = set(made.state_dir.iterdir())
        await made.change(BEN)
        assert set(made.state_dir.iterdir()) == before, "no temporary file is left"
        file.rmdir()
        assert await made.ledger.verify() is None


async def test_what_another_host_wrote_and_this_one_has_seen_may_not_go_either(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA)
        await made.keep()
        other = made.another_host()
        assert await other.put(BEN, await made.vault.owner(BEN), b"row", b"entry")
        assert await made.ledger.verify() is None
        await made.go_back()
        assert await made.ledger.verify() is not None


@pytest.mark.parametrize("head", ["", "ab", "no hexadecimal", "00" * 31])
async def test_a_head_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, head: str) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA)
        (made.state_dir / HEAD_FILE).write_text(head, encoding="utf-8")
        assert await made.ledger.verify() is not None


async def test_what_is_written_while_it_is_verified_is_no_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as made:
        await made.change(ADA)
        read_log, is_first = made.vault.grant_log, True

        async def written_before() -> list[tuple[bytes, bytes]]:
            nonlocal is_first
            if is_first:
                is_first = False
                await made.change(BEN)
            return await read_log()

        monkeypatch.setattr(made.vault, "grant_log", written_before)
        assert await made.another_host().verify() is None


async def test_a_state_directory_that_cannot_be_written_costs_no_grant(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        made.state_dir.write_text("no directory", encoding="utf-8")
        await made.change(ADA)
        assert (await made.vault.owner(ADA)).value == b"row"


async def entries(made: Scene) -> list[bytes]:
    found = await made.client.command("LRANGE", NAMES.grant_log, 0, -1)
    assert isinstance(found, list)
    return [entry for entry in found if isinstance(entry, bytes)]
