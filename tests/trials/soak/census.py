"""What the agent's processes and its Redis hold at a moment.

Two things may grow with answered messages, each within a bound: the ledger (200,000 entries) and the id memory of each conversation
(16 KiB). Both are shown. A soak begins with a full ledger, or most of what Redis holds at its end would be the ledger on its way to its
bound; to subtract it would be to guess, since MEMORY USAGE says 7 % too much for a stream.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import msgspec
import redis
from redis.typing import EncodableT, FieldT

from tests.world import World

ANSWER_SECONDS = 10.0
PAGE = 2000


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and counts of keys by kind. `rss` by the process's part (worker-1, …)."""

    at_seconds: float
    redis_bytes: int
    ledger_bytes: int
    ledger_entries: int
    ids_bytes: int
    keys: dict[str, int]
    rss: dict[str, int]

    def judged(self) -> dict[str, int]:
        """What must not grow."""
        return {"redis_memory": self.redis_bytes, **{f"{part}_rss": held for part, held in self.rss.items()}}


class Scales:
    """Weighs one world again and again."""

    def __init__(self, world: World) -> None:
        self._keys = world.keys
        self._socket = world.redis_socket
        supervisor, server = world.supervisor_pid(), world.redis_pid()
        assert supervisor is not None
        assert server is not None
        workers = {f"worker_{number}": pid for number, pid in enumerate(sorted(world.worker_pids()), start=1)}
        self.pids: Mapping[str, int] = {
            "keeper": world.keeper_pid,
            "redis": server,
            "supervisor": supervisor,
            **workers,
        }

    def weigh(self, at_seconds: float) -> Census:
        """Call it in a thread: it waits for Redis."""
        with self._client() as client:
            counted: Counter[str] = Counter()
            ids_bytes = 0
            for raw in client.scan_iter(match=self._keys.pattern, count=1000):
                key = cast(bytes, raw).decode()
                kind, _ = self._keys.split(key)
                counted[kind] += 1
                if kind == "ids":
                    ids_bytes += client.memory_usage(key) or 0
            return Census(
                at_seconds=round(at_seconds, 1),
                redis_bytes=int(client.info("memory")["used_memory"]),
                ledger_bytes=int(client.memory_usage(self._keys.ledger, samples=0) or 0),
                ledger_entries=client.xlen(self._keys.ledger),
                ids_bytes=ids_bytes,
                keys=dict(sorted(counted.items())),
                rss={part: rss_bytes(pid) for part, pid in self.pids.items()},
            )

    def fill_ledger(self, entries: int) -> None:
        """Put what is in the ledger there again and again until it has so many entries. Call it in a thread."""
        with self._client() as client:
            entries_there = cast("list[tuple[bytes, dict[FieldT, EncodableT]]]", client.xrange(self._keys.ledger))
            there = [fields for _, fields in entries_there]
            assert there, "the ledger is empty, there is nothing to fill it with"
            copies = islice(cycle(there), max(0, entries - len(there)))
            while page := list(islice(copies, PAGE)):
                pipeline = client.pipeline(transaction=False)
                for fields in page:
                    pipeline.xadd(self._keys.ledger, fields)
                pipeline.execute()

    @contextmanager
    def _client(self) -> Iterator[redis.Redis]:
        client = redis.Redis(unix_socket_path=str(self._socket), protocol=2, socket_timeout=ANSWER_SECONDS)
        with closing(client):
            yield client


def rss_bytes(pid: int) -> int:
    """Resident bytes of a process. Raises FileNotFoundError, ProcessLookupError: nothing is killed here, so it has died."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
