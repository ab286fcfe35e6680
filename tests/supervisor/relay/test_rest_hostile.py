"""REST: answers that end the process, or never end."""

import math

import httpx2
import pytest
import trio

from supervisor.relay.rest import MOST_DEVICES, Rest, RestFailed, bounded_seconds, open_rest
from supervisor.settings.secrets import Secret
from tests.supervisor.person import AGENT
from tests.waiting import waiting_for


def rest(answer: httpx2.Response) -> Rest:
    transport = httpx2.MockTransport(lambda _request: answer)
    return Rest(httpx2.AsyncClient(transport=transport, base_url="http://relay"), AGENT)


@pytest.mark.parametrize("value", ["1e999", "NaN", "Infinity", "1" + "0" * 400, "true", "-5", "1e9"])
async def test_a_retry_after_is_a_bounded_number(value: str) -> None:
    """1 and 400 zeros: OverflowError; infinity or a huge number: a reply sleeps for ever in its slot."""
    body = b'{"error": {"code": "rate_limited"}, "retry_after": ' + value.encode() + b"}"
    with pytest.raises(RestFailed) as failed:
        await rest(httpx2.Response(429, content=body)).devices("u")
    assert 0 <= failed.value.retry_after_seconds <= 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(2, 2.0), (0.5, 0.5), (10**400, 300.0), (math.inf, 300.0), (math.nan, 0.0), (-1, 0.0), (True, 0.0), ("5", 0.0)],
)
def test_only_a_number_of_seconds_is_believed(value: object, seconds: float) -> None:
    assert bounded_seconds(value) == seconds


async def test_of_a_list_of_devices_without_end_so_many_are_taken() -> None:
    listed = [{"device_id": f"d{number}"} for number in range(MOST_DEVICES + 10)]
    found = await rest(httpx2.Response(200, json={"data": listed})).devices("u")
    assert len(found) == MOST_DEVICES


async def test_an_answer_nested_without_end_is_a_failed_call() -> None:
    with pytest.raises(RestFailed):
        await rest(httpx2.Response(200, content=b'{"data": ' + b"[" * 200_000)).devices("u")


async def test_a_lone_surrogate_in_a_page_is_a_malformed_frame_or_a_failed_call() -> None:
    """Python's json lets it through, msgspec's encoder does not: UnicodeEncodeError out of `poll`."""
    body = b'{"data": [{"type": "message.new", "message_id": "\\ud800"}]}'
    try:
        await rest(httpx2.Response(200, content=body)).poll(None)
    except RestFailed:
        return


@pytest.mark.parametrize("data", [b"null", b"{}", b'"x"'])
async def test_devices_of_another_shape_are_a_failed_call_and_no_empty_list(data: bytes) -> None:
    """An empty list makes every waiting reply a dead letter."""
    with pytest.raises(RestFailed):
        await rest(httpx2.Response(200, content=b'{"data": ' + data + b"}")).devices("u")


async def test_an_answer_that_drips_ends_at_the_time_limit() -> None:
    """httpx's timeout is per read: catch-up, or a lane, would wait for ever."""

    async def drip(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                await stream.send_all(b" ")
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, drip, listeners)
        port = listeners[0].socket.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with open_rest(url, AGENT, Secret("hsk_x"), timeout_seconds=0.3) as client:
            with waiting_for("the request to be given up", 3), pytest.raises(RestFailed):
                await client.devices("u")
        nursery.cancel_scope.cancel()
