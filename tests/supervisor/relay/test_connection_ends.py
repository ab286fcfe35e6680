"""How connections end and come again: deaf ones, refused ones, pauses with jitter, drains."""

import pytest
import trio
import trio.testing

from supervisor.relay.connection import FAILURES_WITH_SLOT, Connection, NotConnected
from supervisor.relay.connection_states import State
from supervisor.relay.frames import MessageSend, TypingStart
from tests.sandbox.raw_server import CLOSE, PING, PONG, Peer
from tests.supervisor.relay.test_connection import accepted, connecting, read_for_ever, serve, text
from tests.waiting import waiting_for


async def send_for_ever(connection: Connection, frame: MessageSend) -> None:
    while True:
        await connection.send(frame)


async def test_a_deaf_connection_is_given_up_5_s_after_the_ping(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.relay.connection.random.uniform", lambda _low, _high: 0.1)

    async def script(peer: Peer) -> None:
        await accepted(peer)
        await read_for_ever(peer, pongs=False)

    async with connecting(script) as scene:
        await scene.until(lambda: scene.connection.number >= 2)
        first, second = scene.connected_at[:2]
        assert 15 <= second - first < 16
        assert scene.count("reconnect_total") == 1


@pytest.mark.parametrize(("standby_waits", "given_up"), [(True, 1), (False, 0)])
async def test_a_deaf_connection_with_company_is_doubted_then_left_and_its_slot_is_a_standbys(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, standby_waits: bool, given_up: int
) -> None:
    monkeypatch.setattr("supervisor.relay.connection.random.uniform", lambda _low, _high: 0.1)
    is_deaf = True

    async def script(peer: Peer) -> None:
        nonlocal is_deaf
        is_deaf, pongs = False, not is_deaf
        await accepted(peer)
        await read_for_ever(peer, pongs=pongs)

    async with connecting(script) as scene:
        scene.slot.has_company, scene.slot.standby_waits = True, standby_waits
        await scene.connection.wait_connected()
        await scene.connection.wait_doubted()
        assert trio.current_time() - scene.connected_at[0] < 5
        assert scene.connection.state is State.DOUBTED
        assert (scene.connection.shown, scene.connection.is_trusted) == ("connected", False)
        assert await scene.connection.wait_connected() == 2, "what waits for a connection waits for another one"
        assert scene.connected_at[1] - scene.connected_at[0] < 9
        assert scene.slot.given_up == given_up
        assert scene.slot.doubts == [(1, True)]
        await trio.sleep(20)
        assert (scene.connection.number, scene.slot.doubts, scene.slot.given_up) == (2, [(1, True)], given_up)


async def test_a_connection_that_is_heard_after_all_is_trusted_again(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await accepted(peer)
        while True:
            opcode, payload = await peer.read_frame()
            if opcode == PING:
                await trio.sleep(3)
                await peer.frame(PONG, payload)

    async with connecting(script) as scene:
        scene.slot.has_company = True
        await scene.connection.wait_doubted()
        assert await scene.connection.wait_connected() == 1
        assert scene.slot.doubts == [(1, True), (1, False)]


async def test_alone_a_deaf_connection_leaves_a_ghost_that_is_polled_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """By ourselves, after the next connect: the relay may push into the dead one for 90 s."""

    async def script(peer: Peer) -> None:
        await accepted(peer)
        await read_for_ever(peer, pongs=False)

    async with connecting(script) as scene:
        await scene.until(lambda: scene.connection.number >= 2)
        assert scene.slot.doubts[0] == (1, True)
        assert scene.slot.given_up == 0


async def test_a_peer_that_reads_nothing_ends_the_connection_and_not_the_sender(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await accepted(peer)
        await trio.sleep_forever()

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        big = MessageSend("c", "conversation", "text", "A" * 1_000_000)
        with waiting_for("sending to end when the connection does", 30), pytest.raises(NotConnected):
            await send_for_ever(scene.connection, big)
        await scene.until(lambda: scene.connection.number >= 2)


async def test_a_peer_that_is_heard_and_takes_nothing_is_left_after_10_s(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.relay.connection.random.uniform", lambda _low, _high: 0.1)

    async def script(peer: Peer) -> None:
        await accepted(peer)
        for _ in range(60):
            await trio.sleep(1)
            await peer.frame(PONG, b"")

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        big = MessageSend("c", "conversation", "text", "A" * 1_000_000)
        began = trio.current_time()
        with pytest.raises(NotConnected):
            await send_for_ever(scene.connection, big)
        assert 10 <= trio.current_time() - began <= 13
        await scene.until(lambda: scene.connection.number >= 2)


async def test_a_connection_over_which_nothing_is_sent_any_more_is_not_stuck(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await accepted(peer)
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        await scene.connection.send(TypingStart("conversation"))
        await trio.sleep(60)
        assert scene.connection.number == 1


async def test_the_pauses_double_to_30_s_with_full_jitter_and_auth_ok_resets_them(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    monkeypatch.setattr("supervisor.relay.connection.random.uniform", uniform)
    attempts = 0

    async def script(peer: Peer) -> None:
        nonlocal attempts
        attempts += 1
        await peer.read_frame()
        if attempts == 8:
            await text(peer, '{"type":"auth.ok"}')

    async with connecting(script) as scene:
        await scene.until(lambda: attempts >= 9)
        assert asked[:8] == [(0, pause) for pause in (1, 2, 4, 8, 16, 30, 30, 1)]


async def test_a_server_that_refuses_the_upgrade_is_tried_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def uniform(_low: float, high: float) -> float:
        asked.append(high)
        return high

    monkeypatch.setattr("supervisor.relay.connection.random.uniform", uniform)
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with connecting(serve, answer=answer) as scene:
        await scene.until(lambda: len(asked) >= 3)
        assert asked[:3] == [1.0, 2.0, 4.0]


async def test_a_drain_closes_with_1000_and_stays_closed(autojump_clock: trio.testing.MockClock) -> None:
    closes: list[int] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        opcode, payload = await peer.read_frame()
        assert opcode == CLOSE
        closes.append(int.from_bytes(payload[:2], "big"))
        await peer.frame(CLOSE, payload)

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        await scene.connection.close()
        assert closes == [1000]
        assert scene.connection.state is State.CLOSED
        await trio.sleep(120)
        assert (scene.connection.number, closes) == (1, [1000])


async def test_a_drain_does_not_wait_for_a_peer_that_does_not_answer_the_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await accepted(peer)
        await trio.sleep_forever()

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        with waiting_for("the connection to close", 3):
            await scene.connection.close()


async def test_a_drain_between_two_attempts_ends_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = 0

    async def script(peer: Peer) -> None:
        nonlocal attempts
        attempts += 1

    async with connecting(script) as scene:
        await scene.until(lambda: attempts >= 1)
        await scene.connection.close()
        made = attempts
        await trio.sleep(120)
        assert attempts <= made + 1


async def test_a_drain_while_a_connection_is_being_made_leaves_no_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_frame()
        asked.set()
        await trio.sleep(1)
        await text(peer, '{"type":"auth.ok"}')
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await asked.wait()
        await scene.connection.close()
        await trio.sleep(60)
        assert scene.connection.number == 0


async def test_a_lost_connection_is_no_connection_while_its_socket_is_being_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else delivery's loop, told NotConnected, finds itself connected and asks again without a pause."""

    async def script(peer: Peer) -> None:
        await accepted(peer)
        while True:
            await peer.read_frame()

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        with waiting_for("a frame to be sent by the new connection", 30):
            while True:
                try:
                    await scene.connection.send(TypingStart("c"))
                except NotConnected:
                    break
                await trio.sleep(0.05)
        assert scene.connection.shown != "connected"


async def test_who_loses_the_slot_closes_with_1000_and_stands_by(autojump_clock: trio.testing.MockClock) -> None:
    closes: list[bytes] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        while True:
            opcode, payload = await peer.read_frame()
            if opcode == CLOSE:
                closes.append(payload[:2])
                await peer.frame(CLOSE, payload)
                return

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        assert scene.slot.is_connected
        scene.slot.take_away()
        await scene.until(lambda: scene.connection.state is State.DISCONNECTED)
        assert closes == [(1000).to_bytes(2, "big")]
        assert not scene.slot.is_connected
        await trio.testing.wait_all_tasks_blocked()
        assert scene.connection.number == 1


async def test_a_slot_that_leads_nowhere_is_given_up_for_the_pause(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.relay.connection.random.uniform", lambda _low, high: high)
    attempts = list[Peer]()

    async def script(peer: Peer) -> None:
        attempts.append(peer)
        await peer.read_frame()

    async with connecting(script) as scene:
        await scene.until(lambda: scene.slot.given_up == 1)
        assert len(attempts) == FAILURES_WITH_SLOT + 1
        await scene.until(lambda: scene.slot.given_up >= 2)


async def test_whom_the_relay_refuses_leaves_the_slot_to_others(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_frame()
        await text(peer, '{"type":"auth.error","reason":"invalid_token"}')
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await scene.until(lambda: scene.slot.given_up == 1, seconds=30)


async def test_a_standby_can_be_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with connecting(serve) as scene:
        await scene.connection.wait_connected()
        scene.slot.take_away()
        await scene.until(lambda: scene.connection.state is State.DISCONNECTED)
        with waiting_for("the connection to close", 5):
            await scene.connection.close()
