"""Logs every change of a grant (PROTOCOL §5.7), as a chain of MACs in Redis whose head also stands in the state directory.

It proves what this host recorded: an edited entry, a missing one and a cut tail show when it is verified, at every start.
"""

import os
import tempfile
from pathlib import Path

import structlog

from bus.records.sealing import SealBroken
from bus.steps.vault import LedgerStep, Vault, Versioned
from bus.transport.wire import RedisRefused
from crypto.grants import FIRST_PREVIOUS, entry_mac, verify_ledger
from host.whole_file import read_whole

HEAD_FILE = "grants.head"
MOST_HEAD_BYTES = 200

log = structlog.get_logger()


class GrantLedger:
    """The log of one agent."""

    def __init__(self, vault: Vault, ledger_key: bytes, state_dir: Path) -> None:
        self._vault = vault
        self._ledger_key = ledger_key
        self._head_file = state_dir / HEAD_FILE

    async def put(self, owner_id: str, read: Versioned, row: bytes, entry: bytes) -> bool:
        """Replaces a row together with its entry. False if the row or the log has changed meanwhile, and nothing was written."""
        previous = await self._vault.grant_head()
        step = LedgerStep(previous, entry, entry_mac(self._ledger_key, previous, entry))
        if not await self._vault.put_grant(owner_id, read, row, step):
            return False
        self._write_head(step.mac)
        return True

    async def verify(self) -> str | None:
        """Returns what is wrong with the log; None if all of it holds. Another supervisor may have gone on since our head."""
        try:
            entries, head = await self._entries_and_head()
        except (SealBroken, ValueError):
            return "an entry of the grant log does not open"
        except RedisRefused as refused:
            if not refused.is_of_data:
                raise
            return f"the grant log cannot be read ({refused})"
        wrong = verify_ledger(self._ledger_key, entries, head)
        if wrong is not None:
            return f"the grant log does not hold from entry {wrong} on"
        try:
            ours = self._read_head()
        except (OSError, ValueError):
            return f"{self._head_file} cannot be read"
        if ours != FIRST_PREVIOUS and ours not in [mac for _, mac in entries]:
            return f"the grant log has lost its tail: the head in {self._head_file} is not in it"
        self._write_head(head)
        return None

    async def _entries_and_head(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Returns the entries and the head as they stood at one moment, while another supervisor may be writing."""
        while True:
            head = await self._vault.grant_head()
            entries = await self._vault.grant_log()
            if await self._vault.grant_head() == head:
                return entries, head

    def _read_head(self) -> bytes:
        """Returns the head that was written last, that of an empty log before the first. Raises OSError, ValueError."""
        try:
            head = bytes.fromhex(read_whole(self._head_file, MOST_HEAD_BYTES).decode("ascii").strip())
        except FileNotFoundError:
            return FIRST_PREVIOUS
        if len(head) != len(FIRST_PREVIOUS):
            raise ValueError("no head")
        return head

    def _write_head(self, head: bytes) -> None:
        try:
            self._replace_head(head)
        except OSError as error:  # a full disk: the chain in Redis holds, and the next change writes the head
            log.error("grants: the head was not written", file=str(self._head_file), reason=error.strerror)

    def _replace_head(self, head: bytes) -> None:
        self._head_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._head_file.parent, prefix=HEAD_FILE, delete=False, encoding="utf-8"
        ) as file:
            file.write(head.hex() + "\n")
        try:
            os.replace(file.name, self._head_file)  # noqa: PTH105 - a Path of the same directory
        except OSError:
            Path(file.name).unlink()
            raise
