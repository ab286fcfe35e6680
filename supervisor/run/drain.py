"""How a supervisor leaves: jobs finish, replies are sent and acknowledged, the connection closes, the slot goes, one last poll.

In this order: until the relay's close frame it reads and accepts, and its slot is its own; what the relay pushed in the last
instant is found by the poll (DESIGN rules 1 and 5). What another supervisor can do is left to it, so that a leave is short.
"""

import structlog
import trio

from bus.transport.wire import RedisFailed
from supervisor.relay.rest import RestFailed
from supervisor.run.parts import Parts

SETTLE_POLL_SECONDS = 0.05
LEAST_SHARE = 0.2
"""Of the drain's time, for what comes after the jobs, also when those took all of it."""

SAY_SECONDS = 2.0

log = structlog.get_logger()


async def drain(parts: Parts, seconds: float) -> None:
    """Bounded: about `seconds` for jobs and replies together, and a fifth of it more for each of the last steps."""
    log.info("drain: begins", seconds=seconds)
    began = trio.current_time()
    parts.slots.note_leaving()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_what_it_waits_for, parts, began + seconds)
        await parts.pool.drain()  # bounded by itself: what does not finish is handed back
        spent = trio.current_time() - began
        with trio.move_on_after(max(seconds * LEAST_SHARE, seconds - spent)) as patience:
            await _wait_until_sent(parts)
        nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        log.warning("drain: not everything is acknowledged; it stands in Redis and is sent by the next supervisor")
    await parts.connection.close()
    await parts.slots.give_up_for_good()  # only now: the relay has heard the close and counts us no longer
    with trio.move_on_after(seconds * LEAST_SHARE):
        await _take_in_the_last(parts)
    log.info("drain: done", took_seconds=round(trio.current_time() - began, 1))


async def _say_what_it_waits_for(parts: Parts, until: float) -> None:
    """For whoever has pressed Ctrl-C."""
    while True:
        await trio.sleep(SAY_SECONDS)
        running = sum(status.running for status in parts.pool.statuses())
        what = f"{running} jobs in {len(parts.pool.statuses())} workers" if parts.pool.statuses() else "unsent replies"
        log.info(f"drain: waiting for {what}; again to end at once", seconds_left=round(until - trio.current_time()))


async def _wait_until_sent(parts: Parts) -> None:
    """Alone: until every reply is acknowledged. With a successor: until what this process has in hand is."""
    left_to_others = False
    while True:
        if not left_to_others and parts.slots.has_successor:
            left_to_others = True
            await parts.core.taking.stop()
        try:
            if await (_nothing_in_hand(parts) if left_to_others else _nothing_to_send(parts)):
                return
        except RedisFailed:
            return
        await trio.sleep(SETTLE_POLL_SECONDS)


async def _nothing_to_send(parts: Parts) -> bool:
    """Whether every reply was sent and acknowledged."""
    queued = await parts.core.store.client.command("XLEN", parts.core.store.keys.replies)
    return queued == 0 and not await parts.core.outbox.all()


async def _nothing_in_hand(parts: Parts) -> bool:
    """Whether every reply that this process took was sent and acknowledged."""
    if parts.core.taking.under_way:
        return False
    for conversation in await parts.core.outbox.all():
        if await parts.core.outbox.holder_of(conversation) == parts.core.outbox.consumer:
            return False
    return True


async def _take_in_the_last(parts: Parts) -> None:
    """After the close frame: what the relay pushed in the last instant is found by one poll (DESIGN rule 5)."""
    try:
        await parts.core.catchup.poll_to_the_present()
    except (RestFailed, RedisFailed) as error:
        log.warning("poll: failed", reason=str(error))
