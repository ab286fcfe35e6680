"""What the worker needs of the bus, as the two interfaces that JobStore, the tests' double and the test harness keep.

`Outlet` is a handler's half, `WorkerBus` the runner's. Redis' absence is not a handler's concern: what must arrive is
repeated here until it has (each operation is idempotent), what is worth nothing later is dropped.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

from bus.records.presence import Presence
from bus.records.records import Job, Reply
from bus.steps.job_steps import Emitted, Failed, Finished, Said, Started
from bus.transport.backoff import Backoff
from bus.transport.wire import MENDABLE

Result = TypeVar("Result")


class Outlet(Protocol):
    """Where a job's replies go."""

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted: ...
    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None: ...
    async def publish_typing(self, job: Job, active: bool) -> None: ...
    async def publish_abort(self, job: Job) -> None: ...


class WorkerBus(Outlet, Protocol):
    """Where jobs come from and end."""

    async def seen(self, presence: Presence | None = None) -> None: ...
    async def take(self, count: int) -> list[Job]: ...
    async def stop_taking(self) -> None: ...
    async def start(self, job: Job, *, began_ms: int | None = None) -> Started: ...
    async def finish(
        self,
        job: Job,
        outcome: Literal["done", "superseded", "no_handler"] = "done",
        *,
        last: Sequence[Said] = (),
        began_ms: int | None = None,
    ) -> Finished: ...
    async def fail(self, job: Job, reason: str, retry_after_ms: int | None, apology: Reply | None = None) -> Failed: ...
    async def hand_back(self, job: Job, *, has_begun: bool = False, apology: Reply | None = None) -> bool: ...
    def hold(self, job: Job) -> None: ...
    def release(self, job: Job) -> None: ...
    def on_fenced(self, callback: Callable[[str], None]) -> None: ...
    def on_superseded(self, callback: Callable[[str], None]) -> None: ...


async def until_redis_answers(operation: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an idempotent operation until Redis has done it: while it is away, and while we may not. Raises RedisRefused for what no
    repeating mends.
    """
    backoff = Backoff()
    while True:
        try:
            return await operation()
        except MENDABLE:
            await backoff.wait()
