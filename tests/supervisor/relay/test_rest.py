"""REST calls: what is asked, what an answer must look like, and how a failure is told."""

import json

import httpx2
import pytest
import trio
import trio.testing

from bus.transport.wire import RedisFailed
from supervisor.relay.frames import MessageNew, Relation, UnknownFrame
from supervisor.relay.rest import TIMEOUT_SECONDS, Rest, RestFailed, open_rest
from supervisor.settings.secrets import Secret
from tests.supervisor.doubles import relations_of
from tests.supervisor.person import AGENT, message_frame
from tests.supervisor.web_server import Asked, web_server

TOKEN = "hsk_" + "t" * 40


class Relay:
    """Gives one answer and keeps what was asked."""

    def __init__(self, answer: httpx2.Response | Exception) -> None:
        self._answer = answer
        self.asked: list[httpx2.Request] = []
        self.rest = Rest(httpx2.AsyncClient(transport=httpx2.MockTransport(self._hear), base_url="http://relay"), AGENT)

    def _hear(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def answer(data: object, status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json={"data": data})


async def test_prekeys_are_registered_and_the_relay_says_how_many_it_holds() -> None:
    relay = Relay(answer({"one_time_prekeys_left": 42}))
    assert await relay.rest.register_keys({"device_id": AGENT}) == 42
    [request] = relay.asked
    assert (request.method, request.url.path) == ("POST", f"/agents/{AGENT}/keys/register")
    assert json.loads(request.content) == {"device_id": AGENT}


async def test_a_page_has_its_frames_in_order_and_ends_at_its_last_id() -> None:
    frames = [message_frame("a", seq=1), message_frame("b", seq=2)]
    entries = [
        {"type": "message.new", **{name: getattr(frame, name) for name in MessageNew.__struct_fields__}}
        for frame in frames
    ]
    relay = Relay(answer(entries))
    page = await relay.rest.poll("the cursor")
    assert page.frames == frames
    assert page.last_id == frames[-1].message_id
    assert relay.asked[0].url.params["cursor"] == "the cursor"
    assert relay.asked[0].url.params["limit"] == "100"


async def test_without_a_cursor_none_is_asked_and_an_empty_page_has_no_last_id() -> None:
    relay = Relay(answer([]))
    assert (await relay.rest.poll(None)).last_id is None
    assert "cursor" not in relay.asked[0].url.params


async def test_a_frame_of_the_future_in_a_page_is_a_value() -> None:
    relay = Relay(answer([{"type": "of the future", "message_id": "m"}]))
    assert (await relay.rest.poll(None)).frames == [UnknownFrame("of the future")]


@pytest.mark.parametrize(
    ("status", "final"), [(400, True), (401, True), (404, True), (408, False), (429, False), (500, False), (503, False)]
)
async def test_a_refusal_says_its_status_and_whether_waiting_helps(status: int, final: bool) -> None:
    body = {"error": {"code": "some_code", "message": "words"}, "retry_after": 2}
    relay = Relay(httpx2.Response(status, json=body))
    with pytest.raises(RestFailed, match=f"HTTP {status} some_code") as failed:
        await relay.rest.devices("user")
    assert (failed.value.status, failed.value.is_final, failed.value.retry_after_seconds) == (status, final, 2.0)


@pytest.mark.parametrize(
    "given",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, content=b"\xff\xfe"),
        httpx2.Response(200, json=[1]),
        httpx2.Response(200, json={"no": "data"}),
    ],
)
async def test_no_answer_or_one_of_no_use_is_a_failed_call(given: httpx2.Response | Exception) -> None:
    with pytest.raises(RestFailed) as failed:
        await relations_of(Relay(given).rest)
    assert not failed.value.is_final


async def test_a_connection_that_does_not_come_about_says_why_and_quotes_no_text() -> None:
    refused = httpx2.ConnectError("user:password@host")
    refused.__cause__ = OSError(111, "Connection refused")
    with pytest.raises(RestFailed) as failed:
        await Relay(refused).rest.devices("user")
    assert str(failed.value).endswith("ConnectError (Connection refused)")
    assert "password" not in str(failed.value)


async def test_what_is_done_with_relations_while_they_are_read_is_not_counted_as_the_relays_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = list[str]()

    async def note(relation: Relation) -> None:
        await trio.sleep(TIMEOUT_SECONDS)
        told.append(relation.user_id)

    await Relay(httpx2.Response(200, json={"data": [{"user_id": "a"}, {"user_id": "b"}]})).rest.relations(note)
    assert told == ["a", "b"]
    assert trio.current_time() >= 2 * TIMEOUT_SECONDS


async def test_what_goes_wrong_with_a_relation_is_not_taken_for_a_failure_of_the_call() -> None:
    async def note(_relation: Relation) -> None:
        raise RedisFailed("full")

    with pytest.raises(RedisFailed):
        await Relay(httpx2.Response(200, json={"data": [{"user_id": "a"}]})).rest.relations(note)


async def test_the_token_is_sent_and_shown_nowhere() -> None:
    sent: list[str] = []

    async def refuse(asked: Asked, stream: trio.SocketStream) -> None:
        sent.append(asked.headers["authorization"])
        await stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    async with web_server(refuse) as url, open_rest(url, AGENT, Secret(TOKEN)) as rest:
        with pytest.raises(RestFailed) as failed:
            await relations_of(rest)
    assert sent == [f"Bearer {TOKEN}"]
    assert TOKEN not in repr(failed.value) + str(failed.value)
    assert failed.value.__cause__ is None
