"""Messages that no job said, on their way into out-boxes: one at a time, so that a digest to a thousand people holds up no reply.

One that comes alone is queued as a reply is. While another one is in an out-box and not committed yet, the others wait in one line for
all conversations; whoever commits it lets out the next. So a reply stands behind at most one of them, and each of them behind the
replies that stand there when its turn comes, and no others: neither starves the other.

What was sent under a key is remembered for 30 to 40 days, in a hash for each period of ten, which expires as a whole.
"""

import enum
import itertools
from typing import Final, Literal, Protocol, cast

from bus.records.cards import CardKept, decode_card
from bus.records.keys import Keys
from bus.records.outside import SendKey
from bus.records.records import decode_reply_record
from bus.steps.placing import MOST_PLACED
from bus.transport.client import Commands
from bus.transport.clock import redis_ms
from host.budgets import StoreBudgets

PERIOD_MS: Final = 10 * 86_400_000
PERIODS_BEFORE: Final = 3
"""In which a key is looked for beside the present one, so that it is remembered for 30 days at least."""

PAGE: Final = 100
"""Records of the line that are read at once, when one of them is looked for."""

KEPT_SECONDS: Final = (PERIODS_BEFORE + 1) * PERIOD_MS // 1000

TURN_MS: Final = 60_000
"""A message that is not committed by then no longer holds the others up: its supervisor died, or the relay does not say who the person is."""


Beside = Literal["", "act", "start"]
"""What takes no turn: an act, and the beginning of a stream, whose key is only looked at."""


class SendOutcome(enum.Enum):
    """The outcomes of `send`."""

    QUEUED = b"queued"
    WAITS = b"waits"
    """It stands in the line."""

    ALREADY = b"already"
    """The same was sent under this key before."""

    KEY_USED = b"key_used"
    UNKNOWN = b"unknown"
    MANY_KEYS = b"many_keys"
    TAKEN_BACK = b"taken_back"
    """What it recalls has left the line, and nobody sees it."""

    FULL = b"full"
    """Nothing was changed, since too much waits to be sent: try again later."""


class OutsideLine(Protocol):
    """What a supervisor does for the line, whatever it is kept in."""

    async def let_out(self) -> bool:
        """Gives the first of the line its turn, if nobody has it; returns whether it did. Raises RedisFailed, BadRecord."""


class OutsideMessages:
    """The messages from outside of one agent."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def send(
        self,
        conversation_id: str,
        record: bytes,
        message_id: str,
        *,
        key: SendKey | None = None,
        budgets: StoreBudgets,
        is_job: bool = False,
        card: tuple[str, str] = ("", ""),
        beside: Beside = "",
        takes_back: str = "",
    ) -> SendOutcome:
        """Queues a message; with a `key` at most once. Raises RedisFailed, BadRecord.

        `card`: id and kind (bus/records/cards.py) of the one that it shows, so that a handler may update it. `record`: a reply record with `message_id` as its job, or (`is_job`) that of a job which is placed behind all that waits.
        `beside`: what takes no turn. `takes_back`: the id of the
        message that it recalls, which leaves the line if it stands there.
        """
        keys = self._keys
        while True:
            period = await redis_ms(self._client) // PERIOD_MS
            periods = (period, period + 1, *range(period - PERIODS_BEFORE, period))
            waiting = await self._waiting(takes_back) if takes_back else b""
            answer = await self._client.script(
                "send",
                [
                    *keys.board(conversation_id),
                    *(keys.outside, keys.outside_turn),
                    *(keys.send_keys(one) for one in periods),
                    keys.behind,
                    keys.cards(conversation_id),
                ],
                *(conversation_id, record, message_id),
                *("" if key is None else key.name, "" if key is None else key.said),
                *(period, PERIOD_MS, KEPT_SECONDS, TURN_MS, "" if beside == "start" else budgets.ledger_entries),
                *(MOST_PLACED if is_job else "", budgets.waiting_bytes, *card),
                *(beside, waiting),
            )
            if answer not in (b"period", b"changed"):
                return SendOutcome(answer)

    async def _waiting(self, message_id: str) -> bytes:
        """Returns the record of a message that stands in the line; b"" if it does not. Raises BadRecord."""
        for last in itertools.count(-1, -PAGE):  # from its end, so that none is passed over when the first ones leave
            page = await self._client.command("LRANGE", self._keys.outside, last - PAGE + 1, last)
            records = cast("list[bytes]", page)
            for record in records:
                if decode_reply_record(record).job_id == message_id:
                    return record
            if len(records) < PAGE:
                break
        return b""

    async def card(self, conversation_id: str, card_id: str) -> CardKept | None:
        """Returns what is kept of a card of a conversation. Raises RedisFailed, BadRecord."""
        packed = cast("bytes | None", await self._client.command("HGET", self._keys.cards(conversation_id), card_id))
        return None if packed is None else decode_card(packed)

    async def stored(self, name: str) -> bytes | None:
        """Returns the record that handlers keep under a key of the store; None if there is none. Raises RedisFailed."""
        return cast("bytes | None", await self._client.command("HGET", self._keys.store, name))

    async def show(self, packed: bytes) -> bool:
        """Says something over the live channel (bus/records/records.py); returns whether a supervisor has heard it. Raises RedisFailed."""
        return cast(int, await self._client.command("PUBLISH", self._keys.live_channel, packed)) > 0

    async def let_out(self) -> bool:
        """Gives the first of the line its turn, if nobody has it; returns whether it did. Raises RedisFailed, BadRecord."""
        keys = self._keys
        while (record := await self._first()) is not None:
            said = decode_reply_record(record)
            board = keys.board(said.conversation_id)
            arguments = (said.conversation_id, record, said.job_id, TURN_MS)
            answer = await self._client.script("let_out", [*board, keys.outside, keys.outside_turn], *arguments)
            if answer != b"changed":
                return answer == b"let_out"
        return False

    async def _first(self) -> bytes | None:
        return cast("bytes | None", await self._client.command("LINDEX", self._keys.outside, 0))

    async def count(self) -> int:
        """Returns how many wait in the line. Raises RedisFailed."""
        return cast(int, await self._client.command("LLEN", self._keys.outside))
