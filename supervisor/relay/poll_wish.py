"""The wish that the relay be polled soon: who knows that something was missed asks, the one who polls waits."""

import trio


class PollWish:
    """Of one supervisor. `times`: how often it was asked for."""

    def __init__(self) -> None:
        self._asked = trio.Event()
        self.times = 0

    def ask(self) -> None:
        """Poll as soon as possible; asked several times before that it is one poll."""
        self.times += 1
        self._asked.set()

    async def wait(self) -> None:
        """Returns when somebody has asked since `begin`."""
        await self._asked.wait()

    def begin(self) -> None:
        """A poll begins: who asks from now on wants another one."""
        self._asked = trio.Event()
