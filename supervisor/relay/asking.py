"""What the relay has to be asked for while a message waits: again for a few seconds, then the message is read without (DESIGN rule 2).

Nobody else waits longer for it: a page of polled messages would stand still with the one.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast

import structlog
import trio

from bus.transport.wire import RedisFailed
from supervisor.relay.patience import patient_for
from supervisor.relay.rest import RestFailed

WAIT_SECONDS: Final = 5.0
"""How long a message waits before it is quarantined."""

WAIT_LONG_SECONDS: Final = 20.0
"""The same where nothing waits behind it: longer than one call may take, so that a slow relay answers at last."""

AGAIN_SECONDS: Final = 1.0

Answer = TypeVar("Answer")

Failure = RestFailed | RedisFailed

log = structlog.get_logger()


async def asked(asking: Callable[[], Awaitable[Answer]], seconds: float | None = None) -> Answer | None:
    """What `asking` gives, asked again for WAIT_SECONDS while it raises RestFailed; None where it never did, or the relay says no.

    The time does not run while the question waits for its turn among our own (supervisor/relay/patience.py).
    """
    with patient_for(WAIT_SECONDS if seconds is None else seconds):
        while True:
            try:
                return await asking()
            except RestFailed as error:
                log.warning("relay: asked in vain while a message waits", reason=str(error))
                if error.is_final:
                    return None
                await trio.sleep(max(AGAIN_SECONDS, error.retry_after_seconds))
    return None


class Shared(Generic[Answer]):
    """One question for all who ask it at a time: they get the answer, or the failure, of an asking that began after they came."""

    def __init__(self, again_seconds: float) -> None:
        """`again_seconds`: between two askings at least."""
        self._again_seconds = again_seconds
        self._began_at = -again_seconds
        self._number = 0
        self._turn = trio.Lock()
        self._answer: Answer | None = None
        self._failure: Failure | None = None
        self._is_answered = False

    @property
    def is_free(self) -> bool:
        """Whether nobody waits for it, and it need not wait."""
        return not self._turn.locked() and trio.current_time() >= self._began_at + self._again_seconds

    async def ask(self, asking: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `asking` gives, now or later. Raises RestFailed, RedisFailed: a failure is everybody's, and nobody takes it for an answer."""
        number = self._number
        async with self._turn:
            if self._number > number and self._is_answered:
                return self._told()
            await trio.sleep_until(self._began_at + self._again_seconds)
            self._began_at, self._is_answered = trio.current_time(), False
            self._number += 1
            self._answer = self._failure = None
            try:
                self._answer = await asking()
            except (RestFailed, RedisFailed) as error:
                self._failure = error
            self._is_answered = True  # one that was cancelled in the middle leaves it to the next
            return self._told()

    def _told(self) -> Answer:
        if self._failure is not None:
            raise self._failure
        return cast(Answer, self._answer)
