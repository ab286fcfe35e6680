"""Tells when workers die so fast that starting them again at once does not help. Pure: times come in, a judgement goes out."""

from collections import deque
from dataclasses import dataclass

from supervisor.pool.process import ExitReason, WorkerExit


@dataclass(frozen=True, kw_only=True)
class CrashLoopLimits:
    """`deaths` within `window_seconds` are a crash loop (0 = never); it is over after `quiet_seconds` without one."""

    deaths: int = 5
    window_seconds: float = 60.0
    quiet_seconds: float = 60.0


KILLED_FOR = {
    ExitReason.MEMORY.value: "killed by us: it held more than HASHEE_WORKER_MEMORY",
    ExitReason.OVERRUN.value: "killed by us: a job ran for longer than HASHEE_JOB_SECONDS",
    ExitReason.SILENT.value: "killed by us: it hung, its stacks are in the log",
    ExitReason.HELD.value: "killed by us: a handler held its interpreter (a regular expression, say), its stacks are in the log",
    ExitReason.SLOW_START.value: "killed by us: its imports did not end, its stacks are in the log",
}


@dataclass(frozen=True)
class Death:
    """What is known of one death, for people: exit status, reason, exception type and `file.py:12`; empty where it is not known."""

    status: int
    reason: str
    exception: str
    at: str

    @property
    def cause(self) -> str:
        """Returns why, in words: what we have ended it for, else what it died of and where; empty where neither is known."""
        if said := KILLED_FOR.get(self.reason):
            return said
        return " ".join(part for part in (self.exception, self.at and f"at {self.at}") if part)

    def __str__(self) -> str:
        what = self.cause
        return f"status {self.status}" + (f" ({what})" if what else "")


def death_of(exited: WorkerExit) -> Death:
    """Returns what is to be said of the end of a worker."""
    failure = exited.failure
    if failure is None:
        return Death(exited.returncode, exited.reason.value, exited.exception, exited.at)
    at = f"{failure.file.rpartition('/')[2]}:{failure.line}" if failure.file else ""
    return Death(exited.returncode, exited.reason.value, failure.exception, at)


@dataclass(frozen=True)
class CrashLoopStatus:
    """A crash loop that goes on."""

    since_seconds: float
    deaths: int
    last: Death

    def __str__(self) -> str:
        return f"crash loop: {self.deaths} deaths, the last one with {self.last}"


class CrashLoop:
    """Counts the deaths in one pool, and knows whether they are a crash loop now."""

    def __init__(self, limits: CrashLoopLimits) -> None:
        self._limits = limits
        self._deaths: deque[float] = deque(maxlen=max(1, limits.deaths))
        self._began_at: float | None = None
        self._last: Death | None = None
        self._count = 0

    def note(self, now: float, death: Death) -> bool:
        """Counts a death. Returns whether a crash loop begins with it."""
        was_on = self.status(now) is not None
        self._deaths.append(now)
        self._last = death
        self._count += 1
        limits = self._limits
        if was_on or not limits.deaths or len(self._deaths) < limits.deaths:
            return False
        if now - self._deaths[0] > limits.window_seconds:
            return False
        self._began_at = now
        self._count = len(self._deaths)
        return True

    def status(self, now: float) -> CrashLoopStatus | None:
        """Returns the crash loop that goes on now, None without one."""
        if self._began_at is None or self._last is None:
            return None
        if now - self._deaths[-1] > self._limits.quiet_seconds:
            self.forget()
            return None
        return CrashLoopStatus(round(now - self._began_at, 1), self._count, self._last)

    def forget(self) -> None:
        """Ends the loop and forgets its deaths: the code is new, or it has been quiet for long enough."""
        self._began_at = None
        self._deaths.clear()
