"""The relay is asked while a message waits: again for so long, not after a no, and once for all who ask at a time."""

import pytest
import trio
import trio.testing

from supervisor.relay.asking import WAIT_LONG_SECONDS, Shared, asked
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import PAUSES

pytestmark = pytest.mark.pure

MOST_TRIES = 100
TOGETHER_SECONDS = 2.0


class Relay:
    """Fails as often as it is told, then answers; notes when it was asked."""

    def __init__(self, *failures: RestFailed, is_away: bool = False) -> None:
        self._failures = list(failures)
        self._is_away = is_away
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        await trio.lowlevel.checkpoint()
        self.asked_at.append(trio.current_time())
        assert len(self.asked_at) <= MOST_TRIES, "it is asked without a pause"
        if self._is_away:
            raise RestFailed("call", 503)
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


async def test_a_relay_that_answers_nobody_for_a_moment_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    relay = Relay(RestFailed("call", 0), RestFailed("call", 429, retry_after_seconds=3.0))
    assert await asked(relay.ask) == "answer"
    began = relay.asked_at[0]
    assert [at - began for at in relay.asked_at] == pytest.approx([0, PAUSES.asking_again, PAUSES.asking_again + 3])


async def test_a_no_is_not_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    relay = Relay(RestFailed("call", 404))
    assert await asked(relay.ask) is None
    assert len(relay.asked_at) == 1


@pytest.mark.parametrize("seconds", [None, WAIT_LONG_SECONDS])
async def test_nobody_waits_longer_than_that(autojump_clock: trio.testing.MockClock, seconds: float | None) -> None:
    began = trio.current_time()
    assert await asked(Relay(is_away=True).ask, seconds) is None
    assert trio.current_time() - began == pytest.approx(seconds or PAUSES.asking)


class Asker:
    """Whoever asks the shared question; each asking is answered when the test says so."""

    def __init__(self) -> None:
        self.shared = Shared[int](TOGETHER_SECONDS)
        self.may_answer = trio.Event()
        self.fails = False
        self.begun_at: list[float] = []
        self.heard: list[int | str] = []

    async def _question(self) -> int:
        self.begun_at.append(trio.current_time())
        number, fails = len(self.begun_at), self.fails
        await self.may_answer.wait()
        if fails:
            raise RestFailed("call", 503)
        return number

    async def ask(self) -> None:
        try:
            self.heard.append(await self.shared.ask(self._question))
        except RestFailed:
            self.heard.append("failed")


async def test_who_comes_while_it_is_asked_gets_the_answer_of_an_asking_that_began_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = Asker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()
        made.may_answer.set()
    assert made.heard == [1, 2, 2, 2, 2, 2]
    assert made.begun_at[1] - made.begun_at[0] == pytest.approx(TOGETHER_SECONDS)


async def test_a_failure_is_everybodys_and_nobody_takes_it_for_an_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = Asker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()
        made.fails = True
        made.may_answer.set()
    assert made.heard == [1, "failed", "failed", "failed"]
    made.fails = False
    await made.ask()
    assert made.heard[-1] == 3, "what failed before is not told again"


async def test_an_asking_that_was_cancelled_leaves_it_to_the_next(autojump_clock: trio.testing.MockClock) -> None:
    made = Asker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()

        async def give_up() -> None:
            with trio.move_on_after(TOGETHER_SECONDS * 2):
                await made.ask()

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(made.ask)
        await trio.testing.wait_all_tasks_blocked()
        made.may_answer.set()
        made.may_answer = trio.Event()
        await trio.sleep(TOGETHER_SECONDS * 3)  # the second asking was begun and given up
        made.may_answer.set()
    assert made.heard == [1, 3]


async def test_it_is_free_when_nobody_waits_and_it_was_not_asked_a_moment_ago(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = Asker()
    assert made.shared.is_free
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.ask)
        await trio.sleep(TOGETHER_SECONDS * 2)
        assert not made.shared.is_free
        made.may_answer.set()
    assert made.shared.is_free
    await made.ask()
    assert not made.shared.is_free
    await trio.sleep(TOGETHER_SECONDS)
    assert made.shared.is_free
