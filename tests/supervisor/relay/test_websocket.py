"""The adapter over trio-websocket against a server that misbehaves byte by byte (TRAPS.md, trio-websocket)."""

import pytest
import trio
import trio.testing

from supervisor.relay.websocket import BinaryMessageRefused, ConnectFailed, ConnectionLost, open_websocket
from tests.sandbox.raw_server import BINARY, CLOSE, PING, PONG, TEXT, Peer, raw_server
from tests.waiting import waiting_for


async def stay_silent(peer: Peer) -> None:
    """Reads until the client leaves; answers nothing."""
    while True:
        await peer.read_frame()


async def answer_properly(peer: Peer) -> None:
    """Echoes text, answers pings, ends with the closing handshake."""
    while True:
        opcode, payload = await peer.read_frame()
        if opcode == CLOSE:
            await peer.frame(CLOSE, payload)
            return
        await peer.frame(PONG if opcode == PING else opcode, payload)


async def test_text_goes_both_ways_and_a_ping_returns_with_its_pong() -> None:
    async with raw_server(answer_properly) as url, open_websocket(url) as socket:
        await socket.send("grüße")
        assert await socket.receive() == "grüße"
        before = socket.heard_at
        await socket.ping()
        assert socket.heard_at > before


async def test_pings_are_answered_while_hundreds_of_messages_wait_unread() -> None:
    ponged = trio.Event()

    async def flood_then_ping(peer: Peer) -> None:
        for number in range(300):
            await peer.frame(TEXT, str(number).encode())
        await peer.frame(PING, b"alive?")
        opcode, payload = await peer.read_frame()
        assert (opcode, payload) == (PONG, b"alive?")
        ponged.set()
        await stay_silent(peer)

    async with raw_server(flood_then_ping) as url, open_websocket(url, close_timeout_seconds=0.2) as socket:
        with waiting_for("the pong and 300 messages", 5):
            await ponged.wait()
            received = [await socket.receive() for _ in range(300)]
        assert received == [str(number) for number in range(300)]


async def test_a_ping_that_comes_while_closing_neither_escapes_nor_hides_the_peers_close_frame() -> None:
    answered = trio.Event()

    async def ping_into_the_close(peer: Peer) -> None:
        opcode, payload = await peer.read_frame()
        assert opcode == CLOSE
        for _ in range(3):
            await peer.frame(PING, b"late")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await peer.frame(CLOSE, payload)
        answered.set()

    async with raw_server(ping_into_the_close) as url:
        with waiting_for("the closing handshake", 5):
            async with open_websocket(url) as socket:
                await socket.close(1000, "done")
                assert answered.is_set()


async def test_a_close_to_a_peer_that_never_answers_is_bounded() -> None:
    async with raw_server(stay_silent) as url:
        with waiting_for("a close that the peer does not answer", 3):
            async with open_websocket(url, close_timeout_seconds=0.1) as socket:
                await socket.close()
                with pytest.raises(ConnectionLost):
                    await socket.receive()


async def test_a_cancelled_body_leaves_in_bounded_time_though_the_peer_never_answers() -> None:
    async with raw_server(stay_silent) as url:
        with waiting_for("a cancelled connection to end", 3), trio.move_on_after(0.1) as scope:
            async with open_websocket(url, close_timeout_seconds=0.1):
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_close_while_a_send_is_stuck_on_a_stalled_link_is_bounded() -> None:
    async def never_read(peer: Peer) -> None:
        await trio.sleep_forever()

    outcome: list[ConnectionLost] = []
    async with raw_server(never_read) as url:
        with waiting_for("the connection to end while its peer does not read", 5):
            async with (
                open_websocket(url, close_timeout_seconds=0.1) as socket,
                trio.open_nursery() as nursery,
            ):

                async def send_too_much() -> None:
                    try:
                        while True:
                            await socket.send("x" * 1_000_000)
                    except ConnectionLost as error:
                        outcome.append(error)

                nursery.start_soon(send_too_much)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await socket.close()
    assert len(outcome) == 1


async def test_a_send_cancelled_half_way_ends_the_connection_instead_of_corrupting_it() -> None:
    async def never_read(peer: Peer) -> None:
        await trio.sleep_forever()

    async with raw_server(never_read) as url, open_websocket(url, close_timeout_seconds=0.1) as socket:
        with trio.move_on_after(0.2) as scope:
            while True:
                await socket.send("x" * 1_000_000)
        assert scope.cancelled_caught
        with waiting_for("the loss of the connection to be told", 2), pytest.raises(ConnectionLost):
            await socket.receive()
        with pytest.raises(ConnectionLost):
            await socket.send("after")


async def test_the_peers_close_code_and_reason_arrive_after_the_messages_before_it() -> None:
    async def say_goodbye(peer: Peer) -> None:
        await peer.frame(TEXT, b"last words")
        await peer.close_frame(4001, "superseded")
        await stay_silent(peer)

    async with raw_server(say_goodbye) as url, open_websocket(url) as socket:
        assert await socket.receive() == "last words"
        with pytest.raises(ConnectionLost) as lost:
            await socket.receive()
        assert (lost.value.code, lost.value.reason) == (4001, "superseded")


async def test_a_connection_cut_without_a_close_frame_has_no_code() -> None:
    async def cut(peer: Peer) -> None:
        await peer.stream.aclose()

    async with raw_server(cut) as url, open_websocket(url) as socket:
        with waiting_for("the loss of the connection to be told", 5), pytest.raises(ConnectionLost) as lost:
            await socket.receive()
        assert lost.value.code is None


async def test_a_ping_in_flight_ends_when_the_connection_does() -> None:
    async def cut_on_ping(peer: Peer) -> None:
        await peer.read_frame()
        await peer.stream.aclose()

    async with raw_server(cut_on_ping) as url, open_websocket(url) as socket:
        with waiting_for("the ping to fail with the connection", 5), pytest.raises(ConnectionLost):
            await socket.ping()


async def test_a_message_over_the_limit_ends_the_connection_with_1009_and_a_reason() -> None:
    is_open = trio.Event()  # beside the answer to the upgrade it would be read with that, and no connection come about

    async def too_much(peer: Peer) -> None:
        await is_open.wait()
        await peer.frame(TEXT, b"x" * 2000)
        await stay_silent(peer)

    async with (
        raw_server(too_much) as url,
        open_websocket(url, max_message_bytes=1000, close_timeout_seconds=0.1) as socket,
    ):
        is_open.set()
        with (
            waiting_for("the connection to be ended for a message over its limit", 5),
            pytest.raises(ConnectionLost) as lost,
        ):
            await socket.receive()
        assert lost.value.code == 1009
        assert "1000" in lost.value.reason


async def test_a_message_of_two_mebibytes_passes() -> None:
    text = "x" * (2 * 1024 * 1024)

    async def long_text(peer: Peer) -> None:
        await peer.frame(TEXT, text.encode())
        await stay_silent(peer)

    async with raw_server(long_text) as url, open_websocket(url, close_timeout_seconds=0.1) as socket:
        with waiting_for("the large message", 10):
            assert await socket.receive() == text


async def test_a_binary_message_is_refused_by_name_and_the_connection_stays() -> None:
    async def binary_then_text(peer: Peer) -> None:
        await peer.frame(BINARY, b"\x00" * 7)
        await peer.frame(TEXT, b"still here")
        await stay_silent(peer)

    async with raw_server(binary_then_text) as url, open_websocket(url, close_timeout_seconds=0.1) as socket:
        with pytest.raises(BinaryMessageRefused) as refused:
            await socket.receive()
        assert refused.value.size_bytes == 7
        assert await socket.receive() == "still here"


async def test_bytes_that_are_no_websocket_end_the_connection_and_nothing_else() -> None:
    async def nonsense(peer: Peer) -> None:
        await peer.stream.send_all(b"\xff\xff\xff\xff\xff\xff")
        await stay_silent(peer)

    async with raw_server(nonsense) as url, open_websocket(url, close_timeout_seconds=0.1) as socket:
        with waiting_for("the loss of the connection to be told", 5), pytest.raises(ConnectionLost):
            await socket.receive()


async def test_a_refused_upgrade_names_the_status() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with raw_server(stay_silent, answer=refusal) as url:
        with waiting_for("the refused upgrade to be told", 5), pytest.raises(ConnectFailed) as failed:
            async with open_websocket(url):
                pytest.fail("must not open")
        assert failed.value.status == 503


async def test_a_server_that_hangs_up_during_the_upgrade_does_not_cost_the_whole_timeout() -> None:
    async with raw_server(stay_silent, answer=b"") as url:
        with waiting_for("the refused connection to be told", 5), pytest.raises(ConnectFailed):
            async with open_websocket(url, connect_timeout_seconds=60):
                pytest.fail("must not open")


async def test_nobody_listening_is_a_connect_failure() -> None:
    with waiting_for("the connection that nobody accepts to be told", 5), pytest.raises(ConnectFailed):
        async with open_websocket("ws://127.0.0.1:1/"):
            pytest.fail("must not open")


async def test_an_address_that_is_none_is_a_connect_failure() -> None:
    with pytest.raises(ConnectFailed, match="ws://"):
        async with open_websocket("http://127.0.0.1/"):
            pytest.fail("must not open")


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    async with raw_server(answer_properly) as url:
        with pytest.raises(KeyError, match="mine"):
            async with open_websocket(url):
                raise KeyError("mine")


async def test_two_closes_at_once_wait_for_the_same_handshake() -> None:
    async with raw_server(answer_properly) as url, open_websocket(url) as socket:
        with waiting_for("both closes to end", 1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(socket.close)
                nursery.start_soon(socket.close)
