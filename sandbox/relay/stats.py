"""Counts of everything the relay did, for tests and `GET /sandbox/stats`. Names and ids only, never content."""

import time
from collections import Counter


class Stats:
    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.per_owner: dict[str, Counter[str]] = {}
        self._live: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._connectionless: Counter[str] = Counter()
        self._alone_since: dict[str, float] = {}

    def count(self, name: str, owner_id: str | None = None, by: int = 1) -> None:
        self.total[name] += by
        if owner_id is not None:
            self.per_owner.setdefault(owner_id, Counter())[name] += by

    def joined(self, owner_id: str) -> None:
        self._live[owner_id] += 1
        self._connectionless[owner_id] += self._alone_ms(owner_id)
        self._alone_since.pop(owner_id, None)
        self._most[owner_id] = max(self._most.get(owner_id, 0), self._live[owner_id])
        self.count("connections", owner_id)

    def left(self, owner_id: str) -> None:
        self._live[owner_id] -= 1
        if not self._live[owner_id]:
            self._alone_since[owner_id] = time.monotonic()

    def _alone_ms(self, owner_id: str) -> int:
        since = self._alone_since.get(owner_id)
        return 0 if since is None else int((time.monotonic() - since) * 1000)

    def as_json(self) -> dict[str, object]:
        """`total`, and per owner the same names plus connections now, the most there ever were at once, and for how long there
        was none since the first.
        """
        owners = {
            owner_id: {
                **self.per_owner.get(owner_id, {}),
                "connections_now": self._live[owner_id],
                "connections_max": self._most.get(owner_id, 0),
                "connectionless_ms": self._connectionless[owner_id] + self._alone_ms(owner_id),
            }
            for owner_id in sorted({*self.per_owner, *self._most})
        }
        total = {**self.total, "connections_now": sum(self._live.values())}
        return {"total": total, "owners": owners}
