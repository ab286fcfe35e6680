"""A message waits so long for the relay; what it waits behind our own other questions does not count, up to a bound."""

import httpx2
import pytest
import trio
import trio.testing

from supervisor.relay.asking import asked
from supervisor.relay.patience import MOST_TURN_SECONDS, in_turn, patient_for
from supervisor.relay.rest import ASKED_AT_ONCE, Rest
from supervisor.settings.pauses import PAUSES
from tests.supervisor.person import AGENT

pytestmark = pytest.mark.pure

ANSWER_SECONDS = 0.1


def slow_relay(seconds: float) -> Rest:
    async def hear(request: httpx2.Request) -> httpx2.Response:
        await trio.sleep(seconds)
        person = request.url.path.split("/")[-2]
        return httpx2.Response(200, json={"data": [{"device_id": f"device of {person}"}]})

    return Rest(httpx2.AsyncClient(transport=httpx2.MockTransport(hear), base_url="http://relay"), AGENT)


async def test_a_thousand_first_contacts_at_once_are_all_answered(autojump_clock: trio.testing.MockClock) -> None:
    rest, answers = slow_relay(ANSWER_SECONDS), dict[str, object]()
    assert PAUSES.asking < 1000 / ASKED_AT_ONCE * ANSWER_SECONDS

    async def ask(person: str) -> None:
        answers[person] = await asked(lambda: rest.devices(person))

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(ask, f"person-{number}")
    assert answers == {f"person-{n}": [{"device_id": f"device of person-{n}"}] for n in range(1000)}
    assert autojump_clock.current_time() < 1000 / ASKED_AT_ONCE * ANSWER_SECONDS + PAUSES.asking


async def test_a_relay_that_answers_nobody_is_waited_for_no_longer_than_the_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rest, answers = slow_relay(3600.0), list[object]()

    async def ask(number: int) -> None:
        answers.append(await asked(lambda: rest.devices(f"person-{number}")))

    began = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number)
    assert answers == [None] * 200
    assert autojump_clock.current_time() - began <= MOST_TURN_SECONDS + PAUSES.asking + 0.001


async def test_time_stands_still_in_turn_and_goes_on_after_it(autojump_clock: trio.testing.MockClock) -> None:
    began, ended = autojump_clock.current_time(), False
    with patient_for(5):
        await trio.sleep(2)
        with in_turn():
            await trio.sleep(10)
        await trio.sleep(2)
        with in_turn():
            await trio.sleep(MOST_TURN_SECONDS - 10)
        ended = True
        with in_turn():
            await trio.sleep(60)  # the bound is used up
    assert ended
    assert autojump_clock.current_time() - began == pytest.approx(MOST_TURN_SECONDS + 5)


async def test_outside_of_a_question_a_turn_is_just_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    began = autojump_clock.current_time()
    with in_turn():
        await trio.sleep(100)
    assert autojump_clock.current_time() - began == pytest.approx(100)
