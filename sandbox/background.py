"""A nursery for tasks that last as long as a body and are cancelled with it, without an exception group around it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Yields a nursery. What the body raises comes out as it is; what a task raises ends the body and comes as a group."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                # Whose cancellation it is, the nursery knows: its own, after a task failed, or one from outside.
                failure = None if _is_cancellation(error) else error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        if failure is None:
            raise
    if failure is not None:
        raise failure


def _is_cancellation(error: BaseException) -> bool:
    """Returns whether it is nothing else, also where it comes out of nurseries within the body."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
