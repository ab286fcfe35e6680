"""Asks the relay for something that a message needs, again and again for a few seconds; then the message goes on without (DESIGN rule 2).

No longer, since a whole page of polled messages waits with the one.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast

import structlog
import trio

from bus.transport.wire import RedisFailed
from supervisor.relay.patience import patient_for
from supervisor.relay.rest import RestFailed, pause_after
from supervisor.settings.pauses import PAUSES, Pauses

WAIT_LONG_SECONDS: Final = 20.0
"""How long a message waits where nothing waits behind it, not `Pauses.asking`: longer than one call may take, so that a slow relay answers at last."""

Answer = TypeVar("Answer")

Failure = RestFailed | RedisFailed

log = structlog.get_logger()


async def asked(
    asking: Callable[[], Awaitable[Answer]], seconds: float | None = None, *, pauses: Pauses = PAUSES
) -> Answer | None:
    """Calls `asking` again for `pauses.asking` (or `seconds`) while it raises RestFailed. Returns its answer; None without one, or when the relay says no.

    The time does not run while the question waits for its turn among our own (supervisor/relay/patience.py).
    """
    with patient_for(pauses.asking if seconds is None else seconds):
        while True:
            try:
                return await asking()
            except RestFailed as error:
                log.warning("relay: asked in vain while a message waits", reason=str(error))
                if error.is_final:
                    return None
                await trio.sleep(pause_after(error, pauses.asking_again))
    return None


class Shared(Generic[Answer]):
    """Lets all who ask the same question at a time share one call: each gets the answer, or failure, of a call that began after it came."""

    def __init__(self, again_seconds: float) -> None:
        """`again_seconds`: the least time between two calls."""
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
        """Returns what `asking` gives, called now or soon. Raises RestFailed, RedisFailed: all who share the call share its failure."""
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
