"""A run that takes long is attended to while it lasts, and a short one never is."""

import pytest
import trio
import trio.testing

from workers.process.long_runs import LongRuns

pytestmark = pytest.mark.pure
AFTER = 0.5


class Attendant:
    """Notes when it was called, and whether it was ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.called: list[float] = []
        self.ended = False
        self.failures: list[Exception] = []
        self._error = error

    async def attend(self, _nursery: trio.Nursery) -> None:
        self.called.append(trio.current_time())
        if self._error is not None:
            raise self._error
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # a last word takes time
            self.ended = True


async def test_only_a_long_run_is_attended_to_and_ends_when_that_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    short, long = Attendant(), Attendant()
    async with trio.open_nursery() as nursery:
        runs = LongRuns(AFTER)
        nursery.start_soon(runs.watch, nursery)
        async with runs.run(short.attend, short.failures.append):
            await trio.sleep(AFTER / 2)
        began = trio.current_time()
        async with runs.run(long.attend, long.failures.append):
            await trio.sleep(3)
        assert long.ended
        assert trio.current_time() - began == pytest.approx(4)
        nursery.cancel_scope.cancel()
    assert short.called == []
    assert long.called == [pytest.approx(began + AFTER)]


async def test_each_of_many_runs_is_attended_to_when_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    attendants = [Attendant() for _ in range(4)]
    began = trio.current_time()

    async def one(number: int) -> None:
        await trio.sleep(number * AFTER / 4)
        async with runs.run(attendants[number].attend, attendants[number].failures.append):
            await trio.sleep(AFTER / 2 if number == 1 else 5)

    async with trio.open_nursery() as nursery:
        runs = LongRuns(AFTER)
        nursery.start_soon(runs.watch, nursery)
        async with trio.open_nursery() as running:
            for number in range(4):
                running.start_soon(one, number)
        nursery.cancel_scope.cancel()
    due = {number: began + number * AFTER / 4 + AFTER for number in (0, 2, 3)}
    assert {number: one.called[0] for number, one in enumerate(attendants) if one.called} == pytest.approx(due)


async def test_what_goes_wrong_beside_a_run_is_told_of_that_run_and_the_next_is_attended_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broken, whole = Attendant(ValueError("broken")), Attendant()
    async with trio.open_nursery() as nursery:
        runs = LongRuns(AFTER)
        nursery.start_soon(runs.watch, nursery)
        for attendant in (broken, whole):
            async with runs.run(attendant.attend, attendant.failures.append):
                await trio.sleep(1)
        nursery.cancel_scope.cancel()
    [error] = broken.failures
    assert isinstance(error, ExceptionGroup)
    assert "broken" in repr(error.exceptions)
    assert whole.ended
    assert whole.failures == []


async def test_a_run_that_raises_ends_what_attends_to_it(autojump_clock: trio.testing.MockClock) -> None:
    attendant, runs = Attendant(), LongRuns(AFTER)

    async def fail() -> None:
        async with runs.run(attendant.attend, attendant.failures.append):
            await trio.sleep(1)
            raise RuntimeError("by itself")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(runs.watch, nursery)
        with pytest.raises(RuntimeError, match="by itself"):
            await fail()
        assert attendant.ended
        nursery.cancel_scope.cancel()
