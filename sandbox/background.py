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
            except trio.Cancelled:
                # Whose cancellation it is, the nursery knows: its own, after a task failed, or one from outside.
                raise
            except BaseException as error:
                failure = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        if failure is None:
            raise
    if failure is not None:
        raise failure
