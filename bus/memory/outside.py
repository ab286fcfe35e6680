"""Messages that no job said (`send`, `let_out`): one at a time on their way, the others in one line."""

from bus.memory.world import World
from bus.records.cards import CardKept
from bus.records.outside import PLACE, SendKey
from bus.records.records import decode_reply_record
from bus.steps.outside import KEPT_SECONDS, TURN_MS, Beside, SendOutcome
from bus.steps.placing import MOST_PLACED
from host.budgets import StoreBudgets

KEY_BYTES = 110


class MemoryOutside:
    """As `bus.steps.outside.OutsideMessages`. It forgets a key at the end of its time, and not of a period."""

    def __init__(self, world: World) -> None:
        self._world = world

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
        world, at = self._world, self._world.conversation(conversation_id)
        if key is not None and (known := world.said_under(key.name)) is not None:
            return SendOutcome.ALREADY if key.said in (b"", known) else SendOutcome.KEY_USED
        if at.kind is None:
            return SendOutcome.UNKNOWN
        if key is not None and world.most_out is not None and len(world.send_keys) * KEY_BYTES >= world.most_out / 8:
            return SendOutcome.MANY_KEYS
        waiting = [one for one in world.line if takes_back and decode_reply_record(one).job_id == takes_back]
        is_next = bool(beside) or (not world.line and world.whose_turn is None)
        if is_job:
            has_room = len(at.placed) < MOST_PLACED and world.has_room("", budgets)
        else:
            has_room = world.may_say(at) if is_next else world.line_has_room(record)
        if not has_room and not waiting:
            return SendOutcome.FULL
        world.wrote()
        if key is not None and key.said:
            world.send_keys[key.name] = (key.said, world.now_ms + KEPT_SECONDS * 1000)
        if card[0]:
            at.cards[card[0]] = CardKept(0, message_id, PLACE, card[1])
        if waiting:
            world.line.remove(waiting[0])
            return SendOutcome.TAKEN_BACK
        if is_job:
            world.place(at, record)
            return SendOutcome.QUEUED
        if not is_next:
            world.line.append(record)
            return SendOutcome.WAITS
        if not beside:
            world.turn = (message_id, world.now_ms + TURN_MS)
        world.say(at, record)
        return SendOutcome.QUEUED

    async def card(self, conversation_id: str, card_id: str) -> CardKept | None:
        return self._world.conversation(conversation_id).cards.get(card_id)

    async def let_out(self) -> bool:
        world = self._world
        if not world.line or world.whose_turn is not None:
            return False
        record = world.line.pop(0)
        said = decode_reply_record(record)
        world.wrote()
        world.turn = (said.job_id, world.now_ms + TURN_MS)
        world.say(world.conversation(said.conversation_id), record)
        return True

    async def count(self) -> int:
        return len(self._world.line)
