"""Counts what was pushed since the cursor moved, for each conversation: a poll is asked for in time, and beyond that pushes wait for it."""

from collections import Counter

from supervisor.relay.poll_wish import PollWish

POLL_AFTER = 256
"""A poll is asked for after so many pushed messages of one conversation: the cursor stays before them until then."""

MOST_UNPOLLED = 320
"""Pushes of one conversation that are taken in until the cursor moves; later ones come with the poll.

The cursor must not lag behind by more than the 1,024 remembered ids of a conversation (PROTOCOL §5.1), or the poll returns messages whose
ids were forgotten; three supervisors count each for itself. While polling fails pushes are taken in all the same: what is forgotten by
then comes again into quarantine, and is not answered twice.
"""

MOST_COUNTED = 10_000
"""Conversations whose pushes are counted, some 2 MiB: beyond them a poll is asked for and counting begins anew."""


class UnpolledPushes:
    """The pushes of one supervisor that no poll has passed yet."""

    def __init__(
        self,
        polls: PollWish,
        *,
        poll_after: int = POLL_AFTER,
        most_unpolled: int = MOST_UNPOLLED,
        most_counted: int = MOST_COUNTED,
    ) -> None:
        self._polls = polls
        self._poll_after = poll_after
        self._most_unpolled = most_unpolled
        self._most_counted = most_counted
        self._counted: Counter[str] = Counter()
        self._cursor_moves = True

    def __len__(self) -> int:
        """How many conversations are counted."""
        return len(self._counted)

    def polled(self, *, has_caught_up: bool) -> None:
        """Called after a poll. Caught up: the pushes are counted anew. Otherwise pushes are no longer limited, since the cursor cannot advance."""
        self._cursor_moves = has_caught_up
        if has_caught_up:
            self._counted.clear()

    def must_wait(self, conversation_id: str) -> bool:
        """Returns whether a push of this conversation is passed over, since the poll that is to bring it has been asked for."""
        return self._cursor_moves and self._counted[conversation_id] >= self._most_unpolled

    def note(self, conversation_id: str) -> None:
        """Counts a push that was taken in."""
        if len(self._counted) >= self._most_counted and conversation_id not in self._counted:
            self._counted.clear()
            self._polls.ask()
        self._counted[conversation_id] += 1
        if self._counted[conversation_id] % self._poll_after == 0:
            self._polls.ask()
