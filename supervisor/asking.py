"""What the relay has to be asked for while a message waits: again for a few seconds, then the message is read without (DESIGN rule 2).

Nobody else waits longer for it: a page of polled messages would stand still with the one.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
import trio

from supervisor.rest import RestFailed

WAIT_SECONDS: Final = 5.0
"""How long a message waits before it is quarantined."""

WAIT_LONG_SECONDS: Final = 20.0
"""The same where nothing waits behind it: longer than one call may take, so that a slow relay answers at last."""

AGAIN_SECONDS: Final = 1.0

Answer = TypeVar("Answer")

log = structlog.get_logger()


async def asked(asking: Callable[[], Awaitable[Answer]], seconds: float | None = None) -> Answer | None:
    """What `asking` gives, asked again for WAIT_SECONDS while it raises RestFailed; None where it never did, or the relay says no."""
    with trio.move_on_after(WAIT_SECONDS if seconds is None else seconds):
        while True:
            try:
                return await asking()
            except RestFailed as error:
                log.warning("relay: asked in vain while a message waits", reason=str(error))
                if error.is_final:
                    return None
                await trio.sleep(max(AGAIN_SECONDS, error.retry_after_seconds))
    return None
