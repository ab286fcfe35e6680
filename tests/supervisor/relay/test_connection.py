"""The connection to the relay: real sockets on loopback, a server that says exactly what a test wants, the test's clock."""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import structlog
import trio
import trio.testing

from supervisor.observe.metrics import Metrics
from supervisor.relay.connection import Connection, NotConnected, RelayAddress
from supervisor.relay.connection_states import State
from supervisor.relay.frames import FromRelay, MessageAck, TypingStart
from supervisor.relay.relay_date import RelayDate, boot_seconds
from supervisor.settings.secrets import Secret
from tests.sandbox.raw_server import BINARY, CLOSE, PING, PONG, TEXT, Peer, raw_server
from tests.supervisor.doubles import FreeSlot
from tests.waiting import said_of, waiting_for

TOKEN = "hsk_" + "t" * 40
ACK = '{"type":"message.ack","client_message_id":"c","message_id":"m","conversation_seq":1}'


class Scene:
    """A connection under test and what it told its owner."""

    def __init__(self, base_url: str) -> None:
        self.metrics = Metrics()
        self.frames: list[FromRelay] = []
        self.connected_at: list[float] = []
        self.dates: list[RelayDate | None] = []
        self.slot = FreeSlot()
        self.connection = Connection(RelayAddress(base_url, "agent-1", Secret(TOKEN)), self.metrics, self.slot)

    async def run(self) -> None:
        await self.connection.run(self.frames.append, self._connected)

    def _connected(self, date: RelayDate | None) -> None:
        self.connected_at.append(trio.current_time())
        self.dates.append(date)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"hashee_{name}", labels) or 0.0

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        with waiting_for(said_of(condition), seconds):
            while not condition():
                await trio.sleep(1)


@asynccontextmanager
async def connecting(
    script: Callable[[Peer], Awaitable[None]], *, answer: bytes | None = None, headers: bytes = b""
) -> AsyncIterator[Scene]:
    """Runs a connection to a server that plays `script` on each connection."""
    async with raw_server(script, answer=answer, headers=headers) as url:
        scene = Scene(f"http://{urlsplit(url).netloc}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.run)
            yield scene
            nursery.cancel_scope.cancel()


async def text(peer: Peer, frame: str) -> None:
    await peer.frame(TEXT, frame.encode())


async def accepted(peer: Peer) -> dict[str, str]:
    """Reads the first frame and accepts it."""
    _, payload = await peer.read_frame()
    await text(peer, '{"type":"auth.ok"}')
    first: dict[str, str] = json.loads(payload)
    return first


async def read_for_ever(peer: Peer, *, pongs: bool = True) -> None:
    """Answers pings and a close frame like any server; without `pongs` it only swallows."""
    while True:
        opcode, payload = await peer.read_frame()
        if opcode == PING and pongs:
            await peer.frame(PONG, payload)
        elif opcode == CLOSE:
            await peer.frame(CLOSE, payload)
            return


async def serve(peer: Peer) -> None:
    await accepted(peer)
    await read_for_ever(peer)


async def test_the_first_frame_authenticates_and_auth_ok_connects(autojump_clock: trio.testing.MockClock) -> None:
    firsts: list[dict[str, str]] = []

    async def script(peer: Peer) -> None:
        firsts.append(await accepted(peer))
        await read_for_ever(peer)

    async with connecting(script) as scene:
        assert scene.connection.state is not State.CONNECTED
        assert await scene.connection.wait_connected() == 1
        assert firsts == [{"type": "auth", "agent_id": "agent-1", "token": TOKEN}]
        assert len(scene.connected_at) == 1
        assert scene.count("connection_status") == 1


@pytest.mark.parametrize("said", ["Sun, 29 Nov 2026 15:14:54 GMT", "no date", None])
async def test_the_relays_date_is_told_with_the_times_between_which_it_was_written(
    autojump_clock: trio.testing.MockClock, said: str | None
) -> None:
    before = boot_seconds()
    async with connecting(serve, headers=b"" if said is None else f"DATE: {said}\r\n".encode("latin-1")) as scene:
        await scene.connection.wait_connected()
        [date] = scene.dates
        if said is None:
            assert date is None
        else:
            assert date is not None
            assert (date.text, before <= date.asked <= date.heard <= boot_seconds()) == (said, True)


async def test_an_answer_that_does_not_come_within_5_s_is_waited_for_no_longer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.relay.connection.random.uniform", lambda _low, _high: 0.1)
    attempts: list[float] = []

    async def script(peer: Peer) -> None:
        attempts.append(trio.current_time())
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await scene.until(lambda: len(attempts) >= 3)
        assert [round(later - earlier) for earlier, later in itertools.pairwise(attempts[:3])] == [5, 5]
        assert scene.connection.state is not State.CONNECTED
        assert scene.connection.problem == "no answer to authentication within 5 s"


async def test_what_comes_before_auth_ok_goes_to_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        for frame in ('{"type":"ping"}', ACK, "nonsense", '{"type":"of the future"}'):
            await text(peer, frame)
        await serve(peer)

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        assert scene.frames == []


async def test_invalid_token_is_reported_once_and_tried_again_a_minute_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts: list[float] = []

    async def script(peer: Peer) -> None:
        attempts.append(trio.current_time())
        if len(attempts) > 3:
            return await serve(peer)
        await peer.read_frame()
        await text(peer, '{"type":"auth.error","reason":"invalid_token","message":"no","i18n_key":"k"}')
        return await read_for_ever(peer)

    with structlog.testing.capture_logs() as lines:
        async with connecting(script) as scene:
            await scene.until(lambda: len(attempts) >= 3)
            assert scene.connection.refusal == "invalid_token"
            assert [later - earlier >= 60 for earlier, later in itertools.pairwise(attempts[:3])] == [True, True]
            await scene.connection.wait_connected()
            assert scene.connection.refusal is None
    assert [line["remedy"] for line in lines if line["event"] == "connection: refused"] == [
        "check HASHEE_AGENT_ID and HASHEE_AGENT_TOKEN"
    ]
    assert TOKEN not in str(lines)


async def test_a_fourth_connection_is_tried_again_twice_a_second(autojump_clock: trio.testing.MockClock) -> None:
    attempts: list[float] = []

    async def script(peer: Peer) -> None:
        attempts.append(trio.current_time())
        await peer.read_frame()
        await text(peer, '{"type":"auth.error","reason":"connection_limit"}')
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await scene.until(lambda: len(attempts) >= 4)
        pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
        assert all(0.5 <= pause < 0.9 for pause in pauses)


async def test_a_json_ping_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        await text(peer, '{"type":"ping"}')
        heard.append((await peer.read_frame())[1])
        await read_for_ever(peer)

    async with connecting(script) as scene:
        await scene.until(lambda: bool(heard))
        assert json.loads(heard[0]) == {"type": "pong"}
        assert scene.frames == []


async def test_after_10_s_of_silence_it_pings_and_an_answer_keeps_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pings: list[float] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        start = trio.current_time()
        while True:
            opcode, payload = await peer.read_frame()
            if opcode == PING:
                pings.append(trio.current_time() - start)
                await peer.frame(PONG, payload)

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        await scene.until(lambda: len(pings) >= 3)
        assert [round(at) for at in pings[:3]] == [10, 20, 30]
        assert scene.connection.number == 1
        silent = scene.connection.heard_seconds_ago
        assert silent is not None
        assert silent < 5


async def test_frames_of_no_use_are_counted_and_the_connection_stays(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await accepted(peer)
        await text(peer, "{nonsense")
        await text(peer, '{"type":"message.ack","message_id":7,"secret":"content"}')
        await text(peer, '{"type":"of the future"}')
        await peer.frame(BINARY, b"bytes")
        await text(peer, '{"type":"typing.start","conversation_id":"c"}')  # known, but not from a relay to an agent
        await text(peer, ACK)
        await read_for_ever(peer)

    with structlog.testing.capture_logs() as lines:
        async with connecting(script) as scene:
            await scene.until(lambda: bool(scene.frames))
            assert scene.frames == [MessageAck("c", "m", 1)]
            assert scene.count("frame_dropped_total", reason="malformed") == 2
            assert scene.count("frame_dropped_total", reason="unknown_type") == 2
            assert scene.count("frame_dropped_total", reason="binary") == 1
            assert scene.connection.number == 1
    assert "content" not in str(lines)


async def test_sending_needs_a_connection_and_works_again_on_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        if scene.connection.number == 0 and not heard:
            heard.append(b"first connection")
            return
        heard.append((await peer.read_frame())[1])
        await read_for_ever(peer)

    async with connecting(script) as scene:
        with pytest.raises(NotConnected):
            await scene.connection.send(TypingStart("conversation"))
        await scene.until(lambda: scene.count("reconnect_total") == 1)
        await scene.connection.wait_connected()
        await scene.until(lambda: scene.connection.number >= 2)
        assert scene.connection.problem == "", "the one before was lost"
        await scene.connection.send(TypingStart("conversation"))
        await scene.until(lambda: len(heard) == 2)
        assert json.loads(heard[1]) == {"type": "typing.start", "conversation_id": "conversation"}


async def test_a_task_that_waits_wakes_with_each_new_connection(autojump_clock: trio.testing.MockClock) -> None:
    numbers: list[int] = []

    async def script(peer: Peer) -> None:
        await accepted(peer)
        if len(numbers) < 2:
            await trio.sleep(1)
            return
        await read_for_ever(peer)

    async def watch(scene: Scene) -> None:
        while True:
            number = await scene.connection.wait_connected()
            if not numbers or numbers[-1] != number:
                numbers.append(number)
            await trio.sleep(0.5)

    async with connecting(script) as scene, trio.open_nursery() as nursery:
        nursery.start_soon(watch, scene)
        await scene.until(lambda: len(numbers) == 3)
        assert numbers == [1, 2, 3]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://127.0.0.1:80", "ws://127.0.0.1:80/ws/agent?agent_id=a"),
        ("https://api.example", "wss://api.example/ws/agent?agent_id=a"),
        ("https://api.example/v1", "wss://api.example/v1/ws/agent?agent_id=a"),
    ],
)
async def test_the_address_of_the_websocket_follows_from_the_base_url(base: str, expected: str) -> None:
    address = RelayAddress(base, "a", Secret(TOKEN))
    assert address.websocket_url == expected
    assert TOKEN not in repr(address)


async def test_a_binary_frame_before_auth_ok_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.frame(BINARY, b"bytes")
        await serve(peer)

    async with connecting(script) as scene:
        await scene.connection.wait_connected()
        assert scene.count("frame_dropped_total", reason="binary") == 1
