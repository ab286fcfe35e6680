"""A peer that sends without end: what may lie unread, what ends the connection, and that everybody else gets their turn."""

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from supervisor.relay.websocket import MAX_MESSAGE_BYTES, ConnectFailed, ConnectionLost, WebSocket, open_websocket
from supervisor.relay.wire_guard import MOST_UNREAD_BYTES
from tests.sandbox.raw_server import CLOSE, PING, TEXT, Peer, encode_frame, raw_server
from tests.waiting import waiting_for

MIB = 1 << 20
PATIENCE_SECONDS = 30.0
CONTINUED = 0x0
EMPTY = bytes([CONTINUED, 0])
BEGUN = bytes([TEXT, 0])


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    with waiting_for("a connection under a flood to end or to serve", PATIENCE_SECONDS):
        yield


async def stay_silent(peer: Peer) -> None:
    while True:
        await peer.read_frame()


async def end_of(socket: WebSocket) -> ConnectionLost:
    """Receives until the connection is lost."""
    while True:
        try:
            await socket.receive()
        except ConnectionLost as lost:
            return lost


async def test_what_nobody_receives_makes_the_peer_wait_and_comes_whole_and_in_order_later() -> None:
    """512 messages of 2 MiB were a gibibyte."""
    sent_bytes = 0
    messages = 100

    async def flood(peer: Peer) -> None:
        nonlocal sent_bytes
        for number in range(messages):
            text = b"%d " % number + b"x" * MIB
            await peer.stream.send_all(encode_frame(TEXT, text))
            sent_bytes += len(text)
        await peer.read_frame()

    async with patience(), raw_server(flood) as url, open_websocket(url, close_timeout_seconds=0.2) as socket:
        tracemalloc.start()
        try:
            before = -1
            while sent_bytes != before:  # until the peer waits
                before = sent_bytes
                await trio.testing.wait_all_tasks_blocked(0.2)
            assert sent_bytes < messages * MIB // 2  # what the kernel holds of both ends is in it
            assert tracemalloc.get_traced_memory()[1] < 2 * MOST_UNREAD_BYTES + 4 * MAX_MESSAGE_BYTES
        finally:
            tracemalloc.stop()
        received = [(await socket.receive()).partition(" ") for _ in range(messages)]
    assert [(int(number), len(rest)) for number, _, rest in received] == [(n, MIB) for n in range(messages)]


async def test_a_close_while_too_much_lies_unread_is_a_whole_handshake() -> None:
    answered = trio.Event()

    async def flood_and_answer(peer: Peer) -> None:
        closing: list[bytes] = []

        async def hear() -> None:
            opcode, payload = await peer.read_frame()
            assert opcode == CLOSE
            closing.append(payload)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            while not closing:
                await peer.frame(TEXT, b"x" * MIB)
        await peer.frame(CLOSE, closing[0])
        answered.set()

    async with patience(), raw_server(flood_and_answer) as url, open_websocket(url) as socket:
        await trio.testing.wait_all_tasks_blocked(0.1)
        await socket.close()
        assert answered.is_set()


@pytest.mark.parametrize(
    ("flood", "code", "reason"),
    [
        (BEGUN + EMPTY * 30_000, 1008, "too many fragments"),
        (BEGUN + bytes([CONTINUED, 1]) + b"x" + EMPTY * 70, 1008, "too many fragments"),
        (encode_frame(PING, b"x" * 125) * 500, 1008, "too many pings"),
        (bytes([CONTINUED | 0x80 | 0xA, 0]) * 500, 1008, "too many pings"),
        (bytes([0x80 | TEXT, 127]) + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009, "a message over"),
        (bytes([0x80 | TEXT, 127]) + (1 << 62).to_bytes(8, "big"), 1009, "a message over"),
        (bytes([0x80 | 0x40 | TEXT, 5]) + b"small", 1002, "Reserved bit"),
    ],
)
async def test_what_a_peer_may_not_send_ends_the_connection_with_a_name(flood: bytes, code: int, reason: str) -> None:
    async def send_for_ever(peer: Peer) -> None:
        await peer.read_frame()
        while True:
            await peer.stream.send_all(flood)

    async with (
        patience(),
        raw_server(send_for_ever) as url,
        open_websocket(url, close_timeout_seconds=0.2) as socket,
    ):
        await socket.send("go")
        lost = await end_of(socket)
        with pytest.raises(ConnectionLost):
            await socket.send("too late")
    assert lost.code == code
    assert reason in lost.reason


async def test_a_peer_that_listens_is_told_why() -> None:
    told = trio.Event()

    async def say_too_much(peer: Peer) -> None:
        await peer.read_frame()
        await peer.stream.send_all(BEGUN + EMPTY * 100)
        opcode, payload = await peer.read_frame()
        assert (opcode, payload[:2], payload[2:]) == (
            CLOSE,
            (1008).to_bytes(2, "big"),
            b"a message in too many fragments",
        )
        told.set()

    async with patience(), raw_server(say_too_much) as url, open_websocket(url) as socket:
        await socket.send("go")
        await end_of(socket)
        await told.wait()


async def test_an_extension_that_nobody_offered_is_no_connection() -> None:
    """Compressed messages may grow a thousandfold: none are taken."""
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Accept: x\r\n\r\n"
    )
    async with patience(), raw_server(stay_silent, answer=answer) as url:
        with pytest.raises(ConnectFailed):
            async with open_websocket(url):
                pass


async def test_an_upgrade_that_is_refused_at_length_is_not_read_to_its_end() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 503 Later\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await talk(stream)
        except trio.BrokenResourceError:
            return

    async with patience(), trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        tracemalloc.start()
        try:
            with pytest.raises(ConnectFailed, match="an answer to the upgrade over"):
                async with open_websocket(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"):
                    pass
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [0, 30, 20_000])
async def test_while_frames_flood_in_everybody_else_gets_a_turn_with_every_few_of_them(size: int) -> None:
    """Heartbeats, Redis and the pool run in the same loop."""
    frames, turns = 5_000, 0

    async def flood(peer: Peer) -> None:
        burst = encode_frame(TEXT, b"x" * size) * 100
        for _ in range(frames // 100):
            await peer.stream.send_all(burst)
        await peer.read_frame()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with (
        patience(),
        raw_server(flood) as url,
        open_websocket(url, close_timeout_seconds=0.2) as socket,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(take_turns)
        for _ in range(frames):
            await socket.receive()
        nursery.cancel_scope.cancel()
    assert turns >= frames // 4
