"""The states of the connection to the relay: which move leads from one to which, what holds in each, what the slot is told.

All of it is the two tables below. Nothing here does anything: supervisor/relay/connection.py makes the moves and does what follows.
"""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec


class State(enum.StrEnum):
    """Where the connection stands. Strings, since each frame looks a state up, and another Enum's hash is made by a call of Python."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    REFUSED = "refused"
    """The relay has refused the last attempt; the next one comes later than after a failure."""
    CONNECTED = "connected"
    DOUBTED = "doubted"
    """Authenticated, but the relay has not answered a question in time: others do what is under way here."""
    DRAINING = "draining"
    """The closing handshake is under way: what the relay says is still read, nothing more is said."""
    CLOSED = "closed"
    """For good."""


class Move(enum.Enum):
    """What happens to the connection."""

    TRY = "try"
    """An attempt begins."""
    ACCEPT = "accept"
    """auth.ok"""
    REFUSE = "refuse"
    """auth.error"""
    DOUBT = "doubt"
    """The relay has not answered in time, or counts as gone."""
    TRUST = "trust"
    """It was heard after all."""
    LOSE = "lose"
    """The attempt or the connection has ended, or a frame could not be sent over it."""
    CLOSE = "close"
    """The supervisor leaves."""


class Told(enum.Enum):
    """What the slot, and through it every other supervisor, is told of a move."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    DOUBTED = "doubted"
    HEARD = "heard"


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """What holds in one state.

    `shown`: the word of the status page. `is_connected`: the relay counts us as connected (metric, readiness). `may_send`: frames may go
    out. `is_trusted`: and new work may be begun on it.
    """

    shown: str
    is_connected: bool = False
    may_send: bool = False
    is_trusted: bool = False


HOLDS: Final[Mapping[State, Holds]] = {
    State.DISCONNECTED: Holds(shown="disconnected"),
    State.CONNECTING: Holds(shown="connecting"),
    State.REFUSED: Holds(shown="disconnected"),
    State.CONNECTED: Holds(shown="connected", is_connected=True, may_send=True, is_trusted=True),
    State.DOUBTED: Holds(shown="connected", is_connected=True, may_send=True),
    State.DRAINING: Holds(shown="connected", is_connected=True),
    State.CLOSED: Holds(shown="disconnected"),
}


class Transition(msgspec.Struct, frozen=True):
    """Where a move leads, and what the slot is told of it (None: nothing)."""

    to: State
    told: Told | None = None


MOVES: Final[Mapping[State, Mapping[Move, Transition]]] = {
    State.DISCONNECTED: {
        Move.TRY: Transition(State.CONNECTING),
        # Its socket may still be closing, and its heartbeat with it: the relay may push into it in vain, which others should know.
        Move.DOUBT: Transition(State.DISCONNECTED, Told.DOUBTED),
        Move.TRUST: Transition(State.DISCONNECTED),
        Move.LOSE: Transition(State.DISCONNECTED),
        Move.CLOSE: Transition(State.CLOSED),
    },
    State.CONNECTING: {
        Move.ACCEPT: Transition(State.CONNECTED, Told.CONNECTED),
        Move.REFUSE: Transition(State.REFUSED),
        Move.LOSE: Transition(State.DISCONNECTED),
        Move.CLOSE: Transition(State.CLOSED),
    },
    State.REFUSED: {
        Move.TRY: Transition(State.CONNECTING),
        Move.LOSE: Transition(State.REFUSED),
        Move.CLOSE: Transition(State.CLOSED),
    },
    State.CONNECTED: {
        Move.DOUBT: Transition(State.DOUBTED, Told.DOUBTED),
        Move.LOSE: Transition(State.DISCONNECTED, Told.DISCONNECTED),
        Move.CLOSE: Transition(State.DRAINING),
    },
    State.DOUBTED: {
        Move.DOUBT: Transition(State.DOUBTED),
        Move.TRUST: Transition(State.CONNECTED, Told.HEARD),
        Move.LOSE: Transition(State.DISCONNECTED, Told.DISCONNECTED),
        Move.CLOSE: Transition(State.DRAINING),
    },
    State.DRAINING: {
        Move.DOUBT: Transition(State.DRAINING, Told.DOUBTED),
        Move.TRUST: Transition(State.DRAINING, Told.HEARD),
        Move.LOSE: Transition(State.CLOSED, Told.DISCONNECTED),
        Move.CLOSE: Transition(State.DRAINING),
    },
    State.CLOSED: {
        Move.DOUBT: Transition(State.CLOSED, Told.DOUBTED),
        Move.TRUST: Transition(State.CLOSED),
        Move.LOSE: Transition(State.CLOSED),
        Move.CLOSE: Transition(State.CLOSED),
    },
}
"""A move that a state does not name is a defect of ours there."""


class ImpossibleMove(Exception):
    """A defect: this move cannot happen in this state."""

    def __init__(self, state: State, move: Move) -> None:
        super().__init__(f"the connection is {state.value}: {move.value} is not possible")


def step(state: State, move: Move) -> Transition:
    """Returns where `move` leads from `state`. Raises ImpossibleMove."""
    found = MOVES[state].get(move)
    if found is None:
        raise ImpossibleMove(state, move)
    return found
