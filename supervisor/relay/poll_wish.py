"""The wish that the relay be polled soon: who knows that something was missed asks, the one who polls waits."""

import math

import trio


class PollWish:
    """Of one supervisor. `times`: how often it was asked for. `missed_since`: for how long something has waited for a poll; inf for nothing."""

    def __init__(self) -> None:
        self._asked = trio.Event()
        self.times = 0
        self.missed_since = math.inf
        self._missed_anew = False

    def ask(self) -> None:
        """Poll as soon as possible; asked several times before that it is one poll."""
        self.times += 1
        self._asked.set()

    def missed(self) -> None:
        """As `ask`: what was pushed was not taken in, and only a poll brings it; in its conversation nothing goes on before that."""
        self.missed_since = min(self.missed_since, trio.current_time())
        self._missed_anew = True
        self.ask()

    def served(self) -> None:
        """The poll that has begun came to the present: what was missed before it was taken in."""
        if not self._missed_anew:
            self.missed_since = math.inf

    async def wait(self) -> None:
        """Returns when somebody has asked since `begin`."""
        await self._asked.wait()

    def begin(self) -> None:
        """A poll begins: who asks from now on wants another one."""
        self._asked = trio.Event()
        self._missed_anew = False
