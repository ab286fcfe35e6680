"""`hashee-agent grants …`: lists who may talk to this agent, and decides about people whose keys have changed (PROTOCOL §5.7).

The rows are the supervisor's; a decision is stored by compare-and-set together with its entry in the ledger, so it may be made while a
supervisor runs.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

import click
import trio

from bus.steps.letters import Quarantine
from bus.steps.store import now_ms
from bus.steps.vault import Vault, Versioned
from crypto.grants import decide_key_change
from crypto.identity import PublicIdentity
from crypto.keystore import fingerprint_hex, fingerprint_words
from supervisor.cli.keys.telling import told
from supervisor.cli.lazy import LazyGroup
from supervisor.cli.store import REFUSALS, NotThere, OpenStore, open_store, when_tried
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.members import decide_member
from supervisor.peers.owners import Owner
from supervisor.peers.retry_triggers import mark, owner_changed

COMMANDS: Mapping[str, str] = {
    "list": "supervisor.cli.grants:list_grants",
    "accept": "supervisor.cli.grants:accept",
    "refuse": "supervisor.cli.grants:refuse",
}

FIRST = 100
"""Enough for a person to read; a list of 100,000 takes two seconds."""

PAGE = 500
"""Rows read by one command: it takes 0.6 ms, in which Redis serves nobody else."""


class NothingHeld(Exception):
    """No changed keys of this owner wait for a decision."""


class _Rows(NamedTuple):
    store: OpenStore
    vault: Vault
    ledger: GrantLedger


@click.group(cls=LazyGroup, places=COMMANDS, short_help="Who may talk to this agent; decide about changed keys.")
def grants() -> None:
    """Show who may talk to this agent, and decide about people whose keys have changed (HASHEE_KEY_CHANGE=hold)."""


@click.command("list", short_help="Who may talk to this agent.")
@click.argument("owner_ids", nargs=-1)
@click.option("--all", "everybody", is_flag=True, help=f"Everybody, not the first {FIRST} alone.")
@click.option("--changed", is_flag=True, help="Everybody whose changed keys wait for your decision.")
def list_grants(owner_ids: tuple[str, ...], everybody: bool, changed: bool) -> None:
    """Show each owner's grant, fingerprint, and whether a changed pair of keys waits for your decision: of OWNER_IDS, else of all in their order.

    Compare fingerprints with the person by another way than this one before you accept.
    """
    if (len(owner_ids) > 0) + everybody + changed > 1:
        raise click.UsageError("name owners, or --all, or --changed")
    with told(*REFUSALS):
        left = trio.run(_show, owner_ids, None if everybody or changed else FIRST, changed)
    if left:
        click.echo(f"and {left} more: --all; those whose changed keys wait for your decision: --changed", err=True)


@click.command(short_help="Pin the changed keys of an owner.")
@click.argument("owner_id")
def accept(owner_id: str) -> None:
    """Trust the keys that OWNER_ID shows now; the former ones count no more."""
    _decide(owner_id, accepted=True, said=f"the new keys of {owner_id} are pinned")


@click.command(short_help="Go on with the pinned keys of an owner.")
@click.argument("owner_id")
def refuse(owner_id: str) -> None:
    """Keep the keys that are pinned for OWNER_ID; what was signed with others stays unread."""
    _decide(owner_id, accepted=False, said=f"the pinned keys of {owner_id} stay")


def _lines_of(owner_id: str, row: Versioned, *, changed: bool) -> Iterator[str]:
    """Yields the lines of a row. One that is damaged is shown whatever was asked for: nobody can say what stood in it."""
    if row.value is None:
        yield f"{owner_id}  CANNOT BE READ: its row in Redis is damaged; docs/runbooks/redis.md"
        return
    owner = Owner.decode(row.value)
    if owner.grant.held or not changed:
        yield from _lines(owner)


def _lines(owner: Owner) -> Iterator[str]:
    grant = owner.grant
    yield f"{grant.owner_id}  {grant.status.value}  scopes: {', '.join(grant.scopes) or 'none'}"
    for name, pair in (("pinned", grant.pinned), ("CHANGED", grant.held)):
        if pair is not None:
            yield f"  {name}: {_fingerprint(grant.owner_id, pair)}"
    if grant.held is not None:
        yield f"  decide: hashee-agent grants accept {grant.owner_id}   or   refuse {grant.owner_id}"


def _fingerprint(owner_id: str, pair: PublicIdentity) -> str:
    fingerprint = pair.fingerprint(owner_id)
    return f"{fingerprint_words(fingerprint)}  ({fingerprint_hex(fingerprint)})"


def _decide(owner_id: str, *, accepted: bool, said: str) -> None:
    with told(*REFUSALS, NothingHeld):
        count, when = trio.run(_put_decision, owner_id, accepted)
    click.echo(said + (f"; {count} in quarantine are tried again ({when})" if count else ""))


async def _show(named: Sequence[str], most: int | None, changed: bool) -> int:
    """Shows grants page by page as they are read, so that the first appear at once; returns how many were left out."""
    async with _rows() as rows:
        known = await _owner_ids(rows.store)
        missing = [owner_id for owner_id in named if owner_id not in known]
        if missing:
            raise NotThere(f"nobody has a grant under {missing[0]}: hashee-agent grants list --all")
        wanted = list(named) or sorted(known)
        shown = wanted if most is None else wanted[:most]
        for start in range(0, len(shown), PAGE):
            page = shown[start : start + PAGE]
            read = zip(page, await rows.vault.owners(page), strict=True)
            lines = [line for owner_id, row in read for line in _lines_of(owner_id, row, changed=changed)]
            if lines:
                click.echo("\n".join(lines))
        return len(wanted) - len(shown)


async def _owner_ids(store: OpenStore) -> set[str]:
    """Returns the ids of everybody who has a row."""
    found = cast("list[bytes]", await store.client.command("SMEMBERS", store.names.owners))
    return {one.decode() for one in found}


async def _put_decision(owner_id: str, accepted: bool) -> tuple[int, str]:
    """Stores a decision; returns how many messages are tried again because of it, and when."""
    async with _rows() as rows:
        is_owner = await _decide_owner(rows, owner_id, accepted)
        if not is_owner and not await decide_member(rows.vault, owner_id, accepted=accepted):
            raise NothingHeld(f"no changed keys of {owner_id} wait for a decision: hashee-agent grants list --changed")
        held_back = Quarantine(rows.store.client, rows.store.names)
        return await mark(held_back, owner_changed(owner_id)), await when_tried(rows.store)


async def _decide_owner(rows: _Rows, owner_id: str, accepted: bool) -> bool:
    """Decides about an owner with a relation; returns False if no changed keys of one wait.

    Somebody known only from a group has a pin, and no row (supervisor/peers/members.py).
    """
    while True:
        read = await rows.vault.owner(owner_id)
        owner = None if read.value is None else Owner.decode(read.value)
        if owner is None or owner.grant.held is None:
            return False
        entry = decide_key_change(owner.grant, owner.grant.held, accept=accepted, now_ms=now_ms())
        row = Owner(entry.grant, 0 if accepted else owner.devices_fetched_ms)
        if await rows.ledger.put(owner_id, read, row.encode(), entry.encode()):
            return True


@asynccontextmanager
async def _rows() -> AsyncIterator[_Rows]:
    async with open_store() as store:
        vault = Vault(store.client, store.names, store.keys.state)
        yield _Rows(store, vault, GrantLedger(vault, store.keys.ledger, store.state_dir))
