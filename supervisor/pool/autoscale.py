"""How many workers there should be. Pure: what is seen comes in once a second, the number goes out."""

from dataclasses import dataclass, replace
from typing import Self

MOST_WORKERS = 256


@dataclass(frozen=True)
class Bounds:
    """At least, at most; equal for a fixed number."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`N` or `MIN:MAX`. Raises ValueError."""
        first, colon, second = text.partition(":")
        least = _whole(first)
        bounds = cls(least, _whole(second) if colon else least)
        if bounds.least > bounds.most or bounds.most > MOST_WORKERS or (colon and bounds.least < 1):
            raise ValueError
        return bounds

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    def moved(self, by: int) -> "Bounds":
        """TTIN and TTOU: one more or less, never none."""
        least, most = (min(max(1, end + by), MOST_WORKERS) for end in (self.least, self.most))
        return Bounds(least, most)

    def clamp(self, count: int) -> int:
        return min(max(count, self.least), self.most)

    def __str__(self) -> str:
        return str(self.least) if self.is_fixed else f"{self.least}:{self.most}"


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError
    return int(text)


@dataclass(frozen=True, kw_only=True)
class AutoscaleTimes:
    """How long work must wait before a worker more is started, and be little before one less."""

    up_after_seconds: float = 2.0
    down_after_seconds: float = 60.0


@dataclass(frozen=True)
class Load:
    """`waiting`: jobs that no worker has taken. `busy` of `slots` slots of ready workers are used; `starting` workers come."""

    waiting: int
    busy: int
    slots: int
    starting: int


@dataclass(frozen=True)
class Autoscale:
    """Remembers since when there was too much, or little, to do. A step gives the next memory and the number wanted."""

    times: AutoscaleTimes
    much_since: float | None = None
    little_since: float | None = None

    def step(self, now: float, bounds: Bounds, workers: int, load: Load, concurrency: int) -> tuple["Autoscale", int]:
        """One more when jobs wait although every slot is taken; one less when the rest would stay half free."""
        much = load.waiting > 0 and 0 < load.slots <= load.busy and not load.starting
        little = load.waiting == 0 and load.busy * 2 <= (workers - 1) * concurrency
        memory = replace(
            self,
            much_since=_since(self.much_since, now, much),
            little_since=_since(self.little_since, now, little),
        )
        if memory.much_since is not None and now - memory.much_since >= self.times.up_after_seconds:
            more = max(1, -(-load.waiting // concurrency))
            return Autoscale(self.times), bounds.clamp(workers + more)
        if memory.little_since is not None and now - memory.little_since >= self.times.down_after_seconds:
            return Autoscale(self.times), bounds.clamp(workers - 1)
        return memory, bounds.clamp(workers)


def _since(before: float | None, now: float, holds: bool) -> float | None:
    if not holds:
        return None
    return now if before is None else before
