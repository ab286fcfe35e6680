"""Where the relay's records outlive it: nowhere, or an SQLite file, so that the relay itself can be killed.

Each `save` is in the kernel before it returns (no fsync: a killed process loses nothing, a lost machine may).
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from sandbox.relay.records import (
    Agent,
    Attachment,
    Conversation,
    DeviceKeys,
    GroupKey,
    Message,
    Person,
    Record,
    RelationRecord,
)


class Storage(Protocol):
    def save(self, record_id: str, record: Record) -> None:
        """Writes it; an older value under the same id and kind keeps its place in the order."""

    def load(self) -> Iterator[Record]:
        """Every record, oldest first."""


class MemoryStorage:
    """Keeps nothing: the state itself is the memory."""

    def save(self, record_id: str, record: Record) -> None:
        pass

    def load(self) -> Iterator[Record]:
        return iter(())


class SqliteStorage:
    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS records (place INTEGER PRIMARY KEY, kind TEXT NOT NULL,"
            " id TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (kind, id))"
        )

    def save(self, record_id: str, record: Record) -> None:
        self._database.execute(
            "INSERT INTO records (kind, id, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            (type(record).__name__, record_id, msgspec.msgpack.encode(record)),
        )

    def load(self) -> Iterator[Record]:
        kinds: dict[str, type[Record]] = {
            kind.__name__: kind
            for kind in (Agent, Person, DeviceKeys, RelationRecord, Conversation, GroupKey, Message, Attachment)
        }
        for kind, body in self._database.execute("SELECT kind, body FROM records ORDER BY place"):
            yield msgspec.msgpack.decode(body, type=kinds[kind])

    def close(self) -> None:
        """Nothing more is saved; a relay's own ends with its process."""
        self._database.close()
