"""Bounds how long a message waits for the relay's answer; waiting for the turn of our own question does not count, up to a bound.

A thousand people who write for the first time are a thousand questions, eight at a time; that the relay answers each at once
helps nobody whose time has run out in our own queue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio

MOST_TURN_SECONDS: Final = 30.0
"""How much waiting for turns is forgiven to one message: a relay that answers nobody must not hold a page of messages for longer."""


class _Patience:
    """The time of one message. `left_seconds`: how much waiting for turns is still forgiven."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.left_seconds = MOST_TURN_SECONDS


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patient_for(seconds: float) -> Iterator[None]:
    """Ends the block after so many seconds, without an error; those that pass in an `in_turn` block do not count."""
    with trio.move_on_after(seconds) as scope:
        token = _patience.set(_Patience(scope))
        try:
            yield
        finally:
            _patience.reset(token)


@contextmanager
def in_turn() -> Iterator[None]:
    """Stops the clock of the `patient_for` around it while the block waits for our own other questions; alone it does nothing."""
    patience = _patience.get()
    if patience is None:
        yield
        return
    began, scope = trio.current_time(), patience.scope
    scope.deadline += patience.left_seconds
    try:
        yield
    finally:
        waited = min(trio.current_time() - began, patience.left_seconds)
        scope.deadline -= patience.left_seconds - waited
        patience.left_seconds -= waited
