"""How many workers there should be. Pure: what is seen comes in once a second, the number goes out."""

from dataclasses import dataclass, replace

from supervisor.settings.bounds import Bounds


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
        """Returns the next memory and the number of workers wanted.

        More when jobs wait although every slot is taken; one less when the rest would stay half free.
        """
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
