"""What is known by its id alone is found again at the relay: from its cursor on, page by page, and no further than there is anything."""

import msgspec
import pytest

from bus.steps.letters import digest_of, name_beside
from supervisor.inbound.refetch import Refetch
from supervisor.relay.frames import GroupKeyRotated, MessageNew
from supervisor.relay.rest import Page, RestFailed
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import message_frame

pytestmark = pytest.mark.pure

ENOUGH_POLLS = 5


def message(message_id: str, encrypted_payload: str = "sealed") -> MessageNew:
    return msgspec.structs.replace(message_frame(encrypted_payload), message_id=message_id)


def relay() -> FakeRest:
    rest = FakeRest()
    rest.history = [message(f"m{number}") for number in range(1, 6)]
    rest.page_length = 2
    return rest


class Standing(FakeRest):
    """A relay that shows the same page whatever it is asked for."""

    def __init__(self, last_id: str | None) -> None:
        super().__init__()
        self._last_id = last_id

    async def poll(self, cursor: str | None) -> Page:  # noqa: ARG002 - as FakeRest
        await self.called("poll")
        assert len(self.calls) <= ENOUGH_POLLS, "it is asked without end"
        return Page([message("m2")], self._last_id)


async def test_it_is_looked_for_page_by_page_and_on_the_last_page_without_asking() -> None:
    rest = relay()
    refetch = Refetch(rest)
    assert await refetch.find("m4", "m1") is rest.history[3]
    assert await refetch.find("m5", "m1") is rest.history[4]
    assert rest.polled_with == ["m1", "m3"]


async def test_what_the_relay_has_no_more_is_none() -> None:
    rest = relay()
    assert await Refetch(rest).find("gone", "m1") is None
    assert rest.polled_with == ["m1", "m3", "m5"]


async def test_behind_a_cursor_that_the_relay_knows_no_more_it_begins_with_the_oldest() -> None:
    rest = relay()
    rest.fail_next("poll", RestFailed("poll", 400, "unknown_cursor"))
    assert await Refetch(rest).find("m1", "gone") is rest.history[0]
    assert rest.polled_with == [None]


@pytest.mark.parametrize(("status", "cursor"), [(503, "m1"), (0, "m1"), (429, "m1"), (403, None)])
async def test_a_relay_that_is_away_and_one_that_refuses_everything_is_told(status: int, cursor: str | None) -> None:
    rest = relay()
    rest.fail_next("poll", *[RestFailed("poll", status, "no")] * 2)
    with pytest.raises(RestFailed) as failed:
        await Refetch(rest).find("m2", cursor)
    assert (failed.value.status, rest.calls) == (status, ["poll"])


@pytest.mark.parametrize("last_id", ["m2", None])
async def test_a_relay_that_does_not_come_on_is_not_asked_without_end(last_id: str | None) -> None:
    rest = Standing(last_id)
    with pytest.raises(RestFailed, match="no progress"):
        await Refetch(rest).find("m9", "m1")
    assert len(rest.calls) == (1 if last_id is None else 2)


async def test_two_under_one_message_id_are_told_apart_by_their_names() -> None:
    rest = relay()
    one, two = message("m2", "one"), message("m2", "two")
    rest.history = [message("m1"), one, two]
    refetch = Refetch(rest)
    for frame in (one, two):
        name = name_beside("m2", digest_of(frame.conversation_id, frame.encrypted_payload))
        assert await refetch.find(name, "m1") is frame


async def test_what_is_no_message_is_passed_over() -> None:
    rest = relay()
    rest.history.insert(1, GroupKeyRotated("group", 1))
    rest.page_length = 10
    assert await Refetch(rest).find("m2", None) is rest.history[2]
