"""How long the parts of a supervisor wait before they look or try again. Nobody sets them from outside; a test hands over shorter ones."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Each in seconds, by what is waited for."""

    asking: float = 5.0
    """A message waits so long for something that only the relay can say, before it is quarantined (DESIGN rule 2)."""

    asking_again: float = 1.0
    """Between two such askings, at least: a relay that refuses at once is not asked without end."""

    group_key_again: float = 1.0
    """Between two tries to fetch a group's key, and between two looks for what was asked in vain."""

    prekeys_retry: float = 10.0
    """Until publishing is tried again after it failed."""

    prekeys: float = 5.0
    """Between two publications at least, whatever the relay says of how many are left."""

    prekeys_wish: float = 2.0
    """Between two looks whether a command wishes for a new signed prekey."""

    relations_retry: float = 5.0
    """Until the list of relations is read again after that failed."""

    poll_retry: float = 1.0
    """The first pause after a poll that failed."""

    overflow_look: float = 1.0
    """Between two looks at the bounds of quarantine and dead letters: what is written in a second may stand above them."""

    held_look: float = 1.0
    """Between two looks whether a sender has room again."""

    quarantine_look: float = 1.0
    """Between two looks for marked messages, which a command marks too, and between two tries while Redis is away."""

    timers_look: float = 1.0
    """Between two looks for timers that are due: a reminder is at most this late."""

    due_look: float = 1.0
    """Between two looks for records that are due: a resend comes at most this much later than its 10 s."""

    stream_quiet: float = 2.0
    """A stream that grows has a run. After so long without a piece it is asked for."""

    stream_orphaned: float = 30.0
    """So long after its last piece the relay ends a stream by itself (PROTOCOL §1). One from outside has no run that could be asked for."""

    stream_end_again: float = 12.0
    """After we ended a stream that another supervisor shows, its end is told once more: its start has left there by then, or never will (10 s)."""

    reply_retry: float = 1.0
    """Longest pause before a reply, or the reading of replies, is tried again. A failure of Redis lasts seconds; the first pauses are shorter."""

    reply_relay_retry: float = 1.0
    """Shortest pause of a reply after the relay has failed; it may ask for a longer one."""


PAUSES = Pauses()
