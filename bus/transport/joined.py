"""Waits for a thread of ours to end, in a thread of its own: a handler may have all that trio shares."""

import threading

import trio


async def joined(thread: threading.Thread, within_seconds: float) -> None:
    """Returns when the thread has ended, or the time is over; a cancellation does not shorten it."""
    with trio.CancelScope(shield=True):
        at_once = trio.CapacityLimiter(1)
        await trio.to_thread.run_sync(thread.join, within_seconds, abandon_on_cancel=True, limiter=at_once)
