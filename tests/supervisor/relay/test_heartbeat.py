"""When the relay is asked whether it is there, when others are told that it may not hear us, and when it counts as gone."""

import itertools
import math

import pytest
import trio
import trio.testing

from supervisor.relay.heartbeat import (
    COMPANY_SILENCE_SECONDS,
    DOUBT_SECONDS,
    LOOK_SECONDS,
    PING_ANSWER_SECONDS,
    SILENCE_SECONDS,
    SLOWEST_BYTES_PER_SECOND,
    UNANSWERED_SECONDS,
    RelayHeartbeat,
)

pytestmark = pytest.mark.pure

ALONE_SECONDS = SILENCE_SECONDS + PING_ANSWER_SECONDS


class FakeLine:
    """A relay that answers each ping after `answer_seconds`, until `dead_at`."""

    def __init__(self, answer_seconds: float = 0.0, dead_at: float = math.inf) -> None:
        self.heard_at = trio.current_time()
        self.answer_seconds = answer_seconds
        self.dead_at = dead_at
        self.asked: list[float] = []

    async def ping(self) -> None:
        self.asked.append(trio.current_time())
        await trio.sleep(self.answer_seconds)
        if trio.current_time() >= self.dead_at:
            await trio.sleep_forever()
        self.heard_at = trio.current_time()


class Scene:
    """A heartbeat, and what it said: seconds since the beginning."""

    def __init__(self, line: FakeLine, *, has_company: bool) -> None:
        self.line = line
        self.has_company = has_company
        self.began = trio.current_time()
        self.doubts: list[tuple[float, bool]] = []
        self.gone_at: float | None = None
        self.heartbeat = RelayHeartbeat(line, has_company=lambda: self.has_company, doubt=self._doubt)

    def _doubt(self, is_doubted: bool) -> None:
        self.doubts.append((self.now, is_doubted))

    @property
    def now(self) -> float:
        return trio.current_time() - self.began

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.heartbeat.run()
            self.gone_at = self.now


async def test_alone_it_is_asked_after_10_s_and_nobody_is_told_of_a_doubt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(FakeLine(dead_at=0), has_company=False)
    await scene.run(60)
    assert scene.line.asked == [scene.began + SILENCE_SECONDS]
    assert scene.gone_at == pytest.approx(ALONE_SECONDS, abs=LOOK_SECONDS)
    assert scene.doubts == []


async def test_with_company_silence_is_doubted_soon_and_gone_sooner(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene(FakeLine(dead_at=0), has_company=True)
    await scene.run(60)
    [(doubted_at, is_doubted)] = scene.doubts
    assert is_doubted
    assert doubted_at == pytest.approx(COMPANY_SILENCE_SECONDS + DOUBT_SECONDS, abs=LOOK_SECONDS)
    assert scene.gone_at == pytest.approx(COMPANY_SILENCE_SECONDS + PING_ANSWER_SECONDS, abs=LOOK_SECONDS)


async def test_a_relay_that_is_slow_by_seconds_is_doubted_and_never_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(FakeLine(answer_seconds=PING_ANSWER_SECONDS - 2 * LOOK_SECONDS), has_company=True)
    await scene.run(60)
    assert scene.gone_at is None
    assert len(scene.line.asked) > 5
    words = [is_doubted for _, is_doubted in scene.doubts]
    assert words[:2] == [True, False], "each doubt ends with the answer"
    assert all(one is not other for one, other in itertools.pairwise(words))


async def test_a_relay_that_answers_is_never_doubted(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene(FakeLine(answer_seconds=DOUBT_SECONDS - 2 * LOOK_SECONDS), has_company=True)
    await scene.run(60)
    assert (scene.gone_at, scene.doubts) == (None, [])


async def test_a_message_without_its_acknowledgement_is_a_reason_to_ask(autojump_clock: trio.testing.MockClock) -> None:
    scene = Scene(FakeLine(), has_company=True)
    await trio.sleep(0.25)
    scene.heartbeat.sent(100, trio.current_time(), is_acknowledged=False)
    scene.heartbeat.sent(100, trio.current_time(), is_acknowledged=True)
    await scene.run(COMPANY_SILENCE_SECONDS - LOOK_SECONDS)
    assert scene.line.asked[0] - scene.began == pytest.approx(0.25 + UNANSWERED_SECONDS, abs=UNANSWERED_SECONDS / 2)


@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_what_was_sent_before_the_relay_was_last_heard_is_no_reason(
    autojump_clock: trio.testing.MockClock, is_acknowledged: bool
) -> None:
    scene = Scene(FakeLine(), has_company=True)
    scene.heartbeat.sent(10**9, trio.current_time(), is_acknowledged=is_acknowledged)
    await trio.sleep(0.25)
    scene.line.heard_at, scene.line.dead_at = trio.current_time(), 0
    await scene.run(60)
    assert scene.line.asked[0] - scene.began == pytest.approx(0.25 + COMPANY_SILENCE_SECONDS, abs=LOOK_SECONDS)
    assert scene.gone_at == pytest.approx(0.25 + COMPANY_SILENCE_SECONDS + PING_ANSWER_SECONDS, abs=LOOK_SECONDS)


@pytest.mark.parametrize(
    ("seconds", "gone_at"), [(3.0, 3.0), (60.0, ALONE_SECONDS - PING_ANSWER_SECONDS - COMPANY_SILENCE_SECONDS)]
)
async def test_what_is_under_way_on_a_slow_line_goes_before_the_answer_up_to_the_patience_of_one_alone(
    autojump_clock: trio.testing.MockClock, seconds: float, gone_at: float
) -> None:
    scene = Scene(FakeLine(dead_at=0), has_company=True)
    await trio.sleep(LOOK_SECONDS)
    scene.heartbeat.sent(int(seconds * SLOWEST_BYTES_PER_SECOND), trio.current_time(), is_acknowledged=False)
    await scene.run(60)
    assert scene.gone_at == pytest.approx(COMPANY_SILENCE_SECONDS + PING_ANSWER_SECONDS + gone_at, abs=2 * LOOK_SECONDS)


async def test_when_the_others_leave_meanwhile_it_has_the_patience_of_one_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(FakeLine(dead_at=0), has_company=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.run, 60)
        await trio.sleep(COMPANY_SILENCE_SECONDS + DOUBT_SECONDS + 1)
        scene.has_company = False
    assert scene.gone_at == pytest.approx(ALONE_SECONDS, abs=LOOK_SECONDS)


async def test_after_a_stop_of_this_process_the_relay_has_its_time_to_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(FakeLine(answer_seconds=PING_ANSWER_SECONDS - 1), has_company=True)
    scene.line.heard_at -= 3600
    await scene.run(30)
    assert scene.gone_at is None
