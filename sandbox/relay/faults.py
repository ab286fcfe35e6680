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
    FILE_429 = "file_429"
    FILE_413 = "file_413"
    FILE_500 = "file_500"
    FILE_SLOW = "file_slow"
    FILE_CUT = "file_cut"
    FILE_SPOIL = "file_spoil"
    FILE_EXPIRED = "file_expired"
    FILE_FORGET = "file_forget"
    FILE_NO_RANGE = "file_no_range"
    FILE_WRONG_SIZE = "file_wrong_size"
    FILE_BAD_ID = "file_bad_id"
    FILE_ELSEWHERE = "file_elsewhere"
    FILE_REDIRECT = "file_redirect"


class FaultRequest(msgspec.Struct, frozen=True):
    """Body of `POST /sandbox/faults`.

    `owner_id`: only this agent or person; absent: every agent. `count`: how often; `seconds`: how long (with neither,
    once). `delay_seconds`: of `delay_acks`, and of `file_slow` before each piece. `retry_after`: of the 429s, in seconds. `code`: the close
    code of `disconnect`. `429` and `500` arm both their REST and their send form.

    Of files: `file_429` (with `reason` as its code), `file_413` and `file_500` refuse a call; `file_slow`, `file_cut` (half is enough) and `file_spoil`
    (other bytes) bite an upload or a download; `file_expired` refuses the upload and `file_forget` its confirmation; `file_no_range` and
    `file_wrong_size` bite a download; `file_bad_id` names a path in place of an id; `file_elsewhere` has the bytes go to `url`, `file_redirect` sends
    an upload or a download there (`{upload_id}`, `{attachment_id}` and `{signature}` in it are filled in).
    """

    kind: str
    owner_id: str | None = None
    count: int | None = None
    seconds: float | None = None
    delay_seconds: float = 1.0
    retry_after: float = 1.0
    code: int = 1012
    reason: str = ""
    url: str = ""


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
