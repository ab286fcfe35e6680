"""A connection that is half there: it dribbles, hangs up after each greeting, or does not read what we say."""

import itertools

import pytest
import trio
import trio.testing

from supervisor.relay.connection import STEADY_SECONDS
from supervisor.relay.connection_states import State
from supervisor.relay.frames import MessageSend
from supervisor.relay.heartbeat import PING_ANSWER_SECONDS, SILENCE_SECONDS
from supervisor.relay.wire_guard import PROGRESS_BYTES
from tests.sandbox.raw_server import Peer
from tests.supervisor.relay.test_connection import ACK, Scene, accepted, connecting, read_for_ever, text
from tests.waiting import waiting_for

MORE_THAN_THE_KERNEL_TAKES = MessageSend("cmid", "conversation", "text", "x" * 16_000_000)
LONG = b'{"type":"group.updated","x":"' + b"x" * 600_000 + b'"}'


async def in_pieces(peer: Peer, payload: bytes, piece_bytes: int, pause: float) -> None:
    """One frame, a piece at a time."""
    await peer.stream.send_all(b"\x81\x7f" + len(payload).to_bytes(8, "big"))
    for at in range(0, len(payload), piece_bytes):
        await trio.sleep(pause)
        await peer.stream.send_all(payload[at : at + piece_bytes])


async def test_a_byte_every_two_seconds_is_no_hearing(autojump_clock: trio.testing.MockClock) -> None:
    lost_at = list[float]()

    async def dribble(peer: Peer) -> None:
        await accepted(peer)
        began = trio.current_time()
        try:
            await in_pieces(peer, LONG, 1, 2.0)
        finally:
            lost_at.append(trio.current_time() - began)

    async with connecting(dribble) as scene:
        await scene.until(lambda: bool(lost_at))
        assert lost_at[0] <= SILENCE_SECONDS + PING_ANSWER_SECONDS + 5


async def test_a_long_message_on_a_slow_line_is_heard_to_its_end(autojump_clock: trio.testing.MockClock) -> None:
    """No answer to a ping can come before the message is whole: half a minute, and the connection stays."""

    async def slowly(peer: Peer) -> None:
        await accepted(peer)
        await in_pieces(peer, LONG, PROGRESS_BYTES, 0.8)
        await text(peer, ACK)
        await read_for_ever(peer)

    async with connecting(slowly) as scene:
        await scene.until(lambda: bool(scene.frames))
        assert trio.current_time() > SILENCE_SECONDS + PING_ANSWER_SECONDS + 5
        assert scene.connection.number == 1
        await scene.until(lambda: len(scene.frames) == 2)


async def test_a_relay_that_hangs_up_after_each_auth_ok_is_left_alone_for_longer_and_longer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda _least, most: most)

    async def hang_up(peer: Peer) -> None:
        await accepted(peer)
        await peer.close_frame(1012)

    async with connecting(hang_up) as scene:
        await scene.until(lambda: scene.connection.number == 7)
        assert pauses(scene) == [1, 2, 4, 8, 16, 30]


def pauses(scene: Scene) -> list[int]:
    at = scene.connected_at
    return [round(after - before) for before, after in itertools.pairwise(at)]


async def test_a_single_hang_up_costs_a_second_at_most_also_after_a_long_outage(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a relay's deploy: auth.ok resets the backoff."""
    monkeypatch.setattr("random.uniform", lambda _least, most: most)
    connections = list[float]()

    async def deploy(peer: Peer) -> None:
        connections.append(trio.current_time())
        if len(connections) <= 5:
            return  # no answer: the connection fails
        await accepted(peer)
        if len(connections) == 6:
            await peer.close_frame(1012)
        elif len(connections) == 7:
            with trio.move_on_after(STEADY_SECONDS + 1):
                await read_for_ever(peer)
            await peer.close_frame(1012)
        else:
            await read_for_ever(peer)

    async with connecting(deploy) as scene:
        await scene.until(lambda: scene.connection.number == 3)
        assert pauses(scene) == [1, round(STEADY_SECONDS) + 2]


async def test_a_peer_that_takes_nothing_is_heard_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """The reader does not wait for the pong of the ping before: what people say comes in."""

    async def talk_and_read_nothing(peer: Peer) -> None:
        await accepted(peer)
        for _ in range(50):
            await text(peer, '{"type":"ping"}')
        await text(peer, ACK)
        await trio.sleep_forever()

    async with connecting(talk_and_read_nothing) as scene:
        await scene.connection.wait_connected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.connection.send, MORE_THAN_THE_KERNEL_TAKES)
            with waiting_for("a frame while nothing can be sent", 5):
                while not scene.frames:
                    await trio.sleep(0.01)
            assert scene.connection.state is State.CONNECTED
            nursery.cancel_scope.cancel()


async def test_many_pings_at_once_are_answered_by_few_pongs_and_at_least_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pongs = list[bytes]()

    async def ask(peer: Peer) -> None:
        await accepted(peer)
        for _ in range(100):
            await text(peer, '{"type":"ping"}')
        while True:
            _, payload = await peer.read_frame()
            pongs.append(payload)

    async with connecting(ask) as scene:
        await scene.until(lambda: bool(pongs))
        assert set(pongs) == {b'{"type":"pong"}'}
        assert len(pongs) <= 100
        assert scene.connection.state is State.CONNECTED
