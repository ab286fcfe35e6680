"""Counts of everything the relay did, for tests and `GET /sandbox/stats`. Names and ids only, never content."""

from collections import Counter


class Stats:
    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.per_owner: dict[str, Counter[str]] = {}
        self._live: Counter[str] = Counter()
        self._most: dict[str, int] = {}

    def count(self, name: str, owner_id: str | None = None, by: int = 1) -> None:
        self.total[name] += by
        if owner_id is not None:
            self.per_owner.setdefault(owner_id, Counter())[name] += by

    def joined(self, owner_id: str) -> None:
        self._live[owner_id] += 1
        self._most[owner_id] = max(self._most.get(owner_id, 0), self._live[owner_id])
        self.count("connections", owner_id)

    def left(self, owner_id: str) -> None:
        self._live[owner_id] -= 1

    def as_json(self) -> dict[str, object]:
        """`total`, and per owner the same names plus connections now and the most there ever were at once."""
        owners = {
            owner_id: {
                **self.per_owner.get(owner_id, {}),
                "connections_now": self._live[owner_id],
                "connections_max": self._most.get(owner_id, 0),
            }
            for owner_id in sorted({*self.per_owner, *self._most})
        }
        total = {**self.total, "connections_now": sum(self._live.values())}
        return {"total": total, "owners": owners}
