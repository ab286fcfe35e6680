"""How a call to the file gate is repeated, by the kind of its failure, and which error a handler hears in the end."""

import math
import random
from typing import Final

import trio

from bus.files.calls import CallFailure
from workers.errors import FileBroken, FileDailyLimit, FileError, FileGone, FileRefused, FilesOff, FilesUnreachable
from workers.files.gate import NO_TLS, UNANSWERED, GateFailed
from workers.files.limits import MOST_DAILY_BYTES

PATIENCE_SECONDS: Final = 60.0
"""A gate or a relay that restarts is back by then. After it the job fails, and comes again as after any failure."""
BUSY_SECONDS: Final = 600.0
"""For whoever is only one too many: others are served meanwhile. The job's own limit is the same."""
FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 5.0

BUSY: Final = frozenset({CallFailure.BUSY, CallFailure.RELAY_LIMIT})
ANEW: Final = frozenset({CallFailure.UPLOAD_GONE, CallFailure.SHA256_MISMATCH, CallFailure.BAD_TICKET})
"""After these the upload is announced and sealed anew: its id, or what came of it, is of no use any more."""
OF_PROOFS: Final = frozenset({CallFailure.BAD_PROOF, CallFailure.STALE_PROOF})


class Patience:
    """How long the same thing is tried. What has got on a bit is tried as long again."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = math.inf

    def got_on(self) -> None:
        """Notes that something has moved."""
        self._failures, self._since = 0, math.inf

    async def after(self, failed: GateFailed) -> None:
        """Waits until the next try. Raises FileError where there is none."""
        now = trio.current_time()
        self._since = min(self._since, now)
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_WAIT_SECONDS)
        wait = max(wait * random.uniform(0.5, 1.0), failed.retry_after)  # noqa: S311 - spreads load, guards nothing
        self._failures += 1
        bound = BUSY_SECONDS if failed.reason in BUSY else PATIENCE_SECONDS
        if not failed.retry or now + wait > self._since + bound:
            raise error_of(failed) from None
        await trio.sleep(wait)


def error_of(failed: GateFailed) -> FileError:
    """Returns what a handler hears of a call that fails for good."""
    reason = failed.reason
    if failed.retry or reason == UNANSWERED:
        return FilesUnreachable(reason)
    if reason == NO_TLS:
        return FilesOff(failed.message)
    if reason in OF_PROOFS:
        return FilesOff(
            f"the file gate does not know this worker ({reason}: {failed.message}): both need the same bus key, and clocks that agree"
        )
    if reason == CallFailure.NO_SUCH_FILE:
        return FileGone()
    if reason == CallFailure.WRONG_SIZE:
        return FileBroken("size", "the relay has another number of bytes than the message says")
    if reason == CallFailure.DAILY_LIMIT:
        return FileDailyLimit(MOST_DAILY_BYTES, 0, MOST_DAILY_BYTES)
    return FileRefused(reason, failed.message)
