"""The two interfaces by which a worker uses the bus; JobStore, the tests' double and the test harness implement them.

`Outlet` is for replies, `WorkerBus` for the runner. While Redis is away operations that must be done are repeated here (each is idempotent),
and those that are worth nothing later are dropped; a handler sees neither.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

from bus.records.cards import CardKept, CardMove
from bus.records.journal import MOST_JOURNAL_BYTES
from bus.records.presence import Presence
from bus.records.records import Job, Reply
from bus.steps.job_steps import CardEmitted, Emitted, Failed, Finished, Said, Started
from bus.steps.thread_steps import Effect, Noted
from bus.transport.backoff import Backoff
from bus.transport.wire import MENDABLE

Result = TypeVar("Result")


class Outlet(Protocol):
    """Where a job's replies go, and where its thread notes what took time."""

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted: ...
    async def emit_to(self, job: Job, conversation_id: str, place: str, reply: Reply) -> Emitted: ...
    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted: ...
    async def card(self, job: Job, card_id: str) -> CardKept | None: ...
    def card_id(self, job: Job, place: str) -> str: ...
    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes: ...
    async def note(
        self,
        job: Job,
        name: str,
        entry: bytes,
        *,
        room: int = 0,
        most: int = MOST_JOURNAL_BYTES,
        only_new: bool = False,
    ) -> Noted: ...
    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None: ...
    async def publish_typing(self, job: Job, active: bool) -> None: ...
    async def publish_abort(self, job: Job) -> None: ...
    async def read_state(self, job: Job) -> bytes | None: ...
    async def read_exchanges(self, job: Job) -> list[bytes]: ...
    def state_effect(self, job: Job, body: bytes) -> Effect: ...
    def exchange_effect(self, job: Job, at_ms: int, body: bytes) -> Effect: ...
    def forget_effect(self, job: Job) -> Effect: ...


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
    async def settle(
        self,
        job: Job,
        outcome: Literal["done", "waiting", "superseded", "no_handler"],
        effects: Sequence[Effect],
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
    """Repeats an idempotent operation until Redis has done it; returns its result.

    It waits while Redis is away and while it does not let us in. Raises RedisRefused if repeating cannot help.
    """
    backoff = Backoff()
    while True:
        try:
            return await operation()
        except MENDABLE:
            await backoff.wait()
