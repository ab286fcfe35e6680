"""Misbehaviour on purpose: which fault is armed, for whom, how often still. Where it bites, the relay asks `take`.

Armed faults run out by count, by time, or by `clear`; nothing misbehaves that no test asked for.
"""

from enum import StrEnum

import msgspec

FOREVER = 2**31


class FaultKind(StrEnum):
    """`disconnect` and `restart` happen at once; the others are armed."""

    DISCONNECT = "disconnect"
    RESTART = "restart"
    CLEAR = "clear"
    REFUSE_AUTH = "refuse_auth"
    CONNECTION_LIMIT = "connection_limit"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    LOSE_PUSHES = "lose_pushes"
    DELAY_ACKS = "delay_acks"
    LOSE_ACKS = "lose_acks"
    REST_429 = "rest_429"
    REST_500 = "rest_500"
    SEND_429 = "send_429"
    SEND_500 = "send_500"


class FaultRequest(msgspec.Struct, frozen=True):
    """Body of `POST /sandbox/faults`.

    `owner_id`: only this agent or person; absent: every agent. `count`: how often; `seconds`: how long (with neither,
    once). `delay_seconds`: of `delay_acks`. `retry_after`: of the 429s, in seconds. `code`: the close code of `disconnect`.
    `429` and `500` arm both their REST and their send form.
    """

    kind: str
    owner_id: str | None = None
    count: int | None = None
    seconds: float | None = None
    delay_seconds: float = 1.0
    retry_after: float = 1.0
    code: int = 1012


BOTH_FORMS = {
    "429": (FaultKind.REST_429, FaultKind.SEND_429),
    "500": (FaultKind.REST_500, FaultKind.SEND_500),
}


def kinds_of(name: str) -> tuple[FaultKind, ...]:
    """The kinds that a request names. Raises ValueError for an unknown one."""
    return BOTH_FORMS.get(name) or (FaultKind(name),)


class _Armed:
    def __init__(self, kind: FaultKind, request: FaultRequest, now: float) -> None:
        self.kind = kind
        self.request = request
        once = 1 if request.seconds is None else FOREVER
        self.remaining = request.count if request.count is not None else once
        self.ends_at = now + request.seconds if request.seconds is not None else None

    def live(self, now: float) -> bool:
        return self.remaining > 0 and (self.ends_at is None or now < self.ends_at)


class Faults:
    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def arm(self, kind: FaultKind, request: FaultRequest, now: float) -> None:
        self._armed.append(_Armed(kind, request, now))

    def clear(self) -> None:
        self._armed.clear()

    def take(self, kind: FaultKind, names: tuple[str | None, ...], now: float) -> FaultRequest | None:
        """The armed fault of this kind for one of these names, one use of it taken; None where all is well.

        An agent goes by its id and by None, "every agent"; a person by its id alone.
        """
        self._armed = [armed for armed in self._armed if armed.live(now)]
        for armed in self._armed:
            if armed.kind is kind and armed.request.owner_id in names:
                armed.remaining -= 1
                return armed.request
        return None

    def as_json(self, now: float) -> list[dict[str, object]]:
        return [
            {"kind": armed.kind.value, "owner_id": armed.request.owner_id, "remaining": armed.remaining}
            for armed in self._armed
            if armed.live(now)
        ]
