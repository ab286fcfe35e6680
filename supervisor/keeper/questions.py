"""What the keeper has asked one supervisor and not yet heard: each question gets one answer, also when the supervisor ends."""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from supervisor.control.control_socket import Answer, Request
from supervisor.control.keeper_link import Answered, question_line

ENDED = Answer(ok=False, error="the supervisor has ended; the keeper starts it again")


class Questions:
    """To one supervisor; `say` sends it a line."""

    def __init__(self, say: Callable[[str], Awaitable[None]]) -> None:
        self._say = say
        self._waiting: dict[int, trio.MemorySendChannel[Answer]] = {}
        self._asked = 0
        self._ended = False

    async def ask(self, request: Request) -> Answer:
        """Its answer, or `ENDED`. How long to wait is the caller's business."""
        if self._ended:
            return ENDED
        self._asked += 1
        number = self._asked
        send, receive = trio.open_memory_channel[Answer](1)
        self._waiting[number] = send
        try:
            await self._say(question_line(number, request))
            return await receive.receive()
        finally:
            self._waiting.pop(number, None)

    def heard(self, answered: Answered) -> None:
        """An answer to nobody is passed over: the asker has left."""
        waiting = self._waiting.pop(answered.number, None)
        if waiting is None:
            return
        try:
            answer = msgspec.json.decode(answered.answer, type=Answer)
        except msgspec.DecodeError:
            answer = Answer(ok=False, error="the supervisor's answer cannot be read")
        waiting.send_nowait(answer)

    def end(self) -> None:
        """The supervisor is gone."""
        self._ended = True
        for waiting in self._waiting.values():
            waiting.send_nowait(ENDED)
        self._waiting.clear()
