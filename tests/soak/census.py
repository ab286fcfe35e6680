"""What the agent's processes and its Redis hold at a moment. Only reads.

Two things may grow with answered messages, each within a bound that a soak does not reach or reaches late: the ledger (200,000 entries)
and the id memory of each conversation (16 KiB). Both are measured, shown, and subtracted from what is judged.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import cast

import msgspec
import redis

from bus.keys import Keys
from tests.world import World

ANSWER_SECONDS = 10.0
ALLOWED_TO_GROW = ("ledger", "ids")


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and counts of keys by kind. `rss` by the process's part (worker-1, …)."""

    at_seconds: float
    redis_bytes: int
    ledger_bytes: int
    ledger_entries: int
    ids_bytes: int
    keys: dict[str, int]
    rss: dict[str, int]

    @property
    def allowed_bytes(self) -> int:
        """What may grow, within its bound."""
        return self.ledger_bytes + self.ids_bytes

    def judged(self) -> dict[str, int]:
        """What must not grow; of Redis without what may."""
        rss = {part: held - self.allowed_bytes * (part == "redis") for part, held in self.rss.items()}
        return {"redis_memory": self.redis_bytes - self.allowed_bytes, **{f"{part}_rss": n for part, n in rss.items()}}


class Scales:
    """Weighs one world again and again."""

    def __init__(self, world: World) -> None:
        self._keys = Keys(world.environment["HASHEE_AGENT_ID"])
        self._socket = world.state_dir / "redis" / "redis.sock"
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
        with closing(
            redis.Redis(unix_socket_path=str(self._socket), protocol=2, socket_timeout=ANSWER_SECONDS)
        ) as client:
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


def rss_bytes(pid: int) -> int:
    """Resident bytes of a process. Raises FileNotFoundError, ProcessLookupError: nothing is killed here, so it has died."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
