"""A client of the gate that speaks no HTTP, lies about lengths, stands still, or does not listen: it costs its own connection and no more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import msgspec
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from bus.files.calls import CallFailure, Failed
from supervisor.files.exchange import MOST_HEAD_BYTES, PIECE_BYTES, ClientGone, Connection, Exchange, Patience
from supervisor.files.failures import CallFailed

PUT = b"PUT /x HTTP/1.1\r\nHost: gate\r\nContent-Length: %d\r\n\r\n"


class Gate:
    """Reads a body whole, and says how long it was."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.reasons: list[str] = []
        self.ended = trio.Event()

    async def handle(self, exchange: Exchange) -> None:
        try:
            length = sum([len(piece) async for piece in exchange.body()]) if self.reads else 0
        except CallFailed as failed:
            self.reasons.append(failed.failure)
            await exchange.answer(failed.status, failed.body)
            return
        await exchange.answer(200, {"length": length, "announced": exchange.content_length})


@asynccontextmanager
async def client(gate: Gate) -> AsyncIterator[trio.abc.Stream]:
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        await Connection(theirs, Patience()).serve(gate.handle)
        gate.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield ours
        nursery.cancel_scope.cancel()


async def answer_of(stream: trio.abc.Stream) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection stays."""
    http, body, status, stays = h11.Connection(h11.CLIENT), b"", 0, True
    http.send(h11.Request(method="GET", target="/", headers=[("host", "gate")]))
    http.send(h11.EndOfMessage())
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status, stays = event.status_code, (b"connection", b"close") not in event.headers
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return status, body, stays


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with client(Gate()) as stream:
        for length in (3, 0, 100_000):
            await stream.send_all(PUT % length + b"x" * length)
            status, body, stays = await answer_of(stream)
            assert (status, msgspec.json.decode(body), stays) == (200, {"length": length, "announced": length}, True)


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: gate\r\nContent-Length: -5\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 2 * MOST_HEAD_BYTES,
    ],
)
async def test_what_is_no_request_is_refused_and_hung_up_on(said: bytes) -> None:
    gate = Gate()
    async with client(gate) as stream:
        await stream.send_all(said)
        status, body, stays = await answer_of(stream)
        assert 400 <= status < 500
        assert msgspec.json.decode(body, type=Failed).error.reason == CallFailure.BAD_CALL
        assert not stays
        await gate.ended.wait()


async def test_a_body_in_chunks_is_refused() -> None:
    request = h11.Request(method="PUT", target="/x", headers=[("host", "gate"), ("transfer-encoding", "chunked")])
    _, theirs = memory_stream_pair()
    with pytest.raises(CallFailed) as failed:
        _ = Exchange(Connection(theirs, Patience()), request).content_length
    assert failed.value.failure is CallFailure.NO_LENGTH


async def test_a_body_that_is_cut_is_shorter_than_it_said() -> None:
    gate = Gate()
    async with client(gate) as stream:
        await stream.send_all(PUT % 10 + b"12345")
        assert isinstance(stream, trio.StapledStream)
        await stream.send_eof()
        status, _, stays = await answer_of(stream)
        assert (status, stays, gate.reasons) == (400, False, [CallFailure.WRONG_LENGTH])


async def test_an_answer_before_the_body_is_read_is_heard_and_then_the_connection_ends(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    gate = Gate(reads=False)
    async with client(gate) as stream:
        await stream.send_all(PUT % 10 + b"12345")
        status, _, stays = await answer_of(stream)
        assert (status, stays) == (200, False)
        await gate.ended.wait()


async def test_who_says_nothing_or_half_a_head_or_half_a_body_is_hung_up_on(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    patience = Patience()
    for said, seconds in ((b"", patience.idle_seconds), (b"GET /x HT", patience.head_seconds)):
        gate, began = Gate(), trio.current_time()
        async with client(gate) as stream:
            if said:
                await stream.send_all(said)
            await gate.ended.wait()
        assert trio.current_time() - began == pytest.approx(seconds, abs=1)
    gate, began = Gate(), trio.current_time()
    async with client(gate) as stream:
        await stream.send_all(PUT % 10 + b"12345")
        await gate.ended.wait()
    assert gate.reasons == [CallFailure.WRONG_LENGTH]
    assert trio.current_time() - began == pytest.approx(patience.stall_seconds + patience.linger_seconds, abs=1)


async def test_who_does_not_take_the_answer_is_hung_up_on(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    ours, theirs = trio.testing.lockstep_stream_pair()
    gone = trio.Event()

    async def talk(exchange: Exchange) -> None:
        try:
            await exchange.answer(200, b"x" * 1000, content_type="x/y")
        except ClientGone:
            gone.set()
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(theirs, Patience()).serve, talk)
        await ours.send_all(b"GET /x HTTP/1.1\r\nHost: gate\r\n\r\n")
        await gone.wait()


async def test_a_long_body_is_read_whole_and_the_connection_ends_with_its_answer() -> None:
    length = 3 * PIECE_BYTES + 7
    gate = Gate()
    async with client(gate) as stream:
        await stream.send_all(PUT % length + b"x" * length)
        status, body, stays = await answer_of(stream)
        assert (status, msgspec.json.decode(body), stays) == (200, {"length": length, "announced": length}, False)
        await gate.ended.wait()


async def test_a_long_body_that_is_cut_is_shorter_than_it_said() -> None:
    gate = Gate()
    async with client(gate) as stream:
        await stream.send_all(PUT % (3 * PIECE_BYTES) + b"x" * (2 * PIECE_BYTES))
        assert isinstance(stream, trio.StapledStream)
        await stream.send_eof()
        status, _, stays = await answer_of(stream)
        assert (status, stays, gate.reasons) == (400, False, [CallFailure.WRONG_LENGTH])
