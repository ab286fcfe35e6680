"""The proxy acts out a bad network: each thing it does is seen from both ends of a real connection."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sandbox.chaos_proxy import ChaosProxy, chaos_proxy
from sandbox.close_codes import CloseCodeReader
from supervisor.relay.websocket import ConnectFailed, ConnectionLost, open_websocket
from tests.sandbox.raw_server import CLOSE, TEXT, Peer, encode_frame, raw_server
from tests.waiting import waiting_for


@asynccontextmanager
async def echo_behind_proxy() -> AsyncIterator[tuple[ChaosProxy, str]]:
    async def echo(peer: Peer) -> None:
        while True:
            opcode, payload = await peer.read_frame()
            await peer.frame(opcode, payload)
            if opcode == CLOSE:
                return

    async with raw_server(echo) as url:
        port = int(url.split(":")[2].split("/")[0])
        async with chaos_proxy("127.0.0.1", port) as proxy:
            yield proxy, f"ws://127.0.0.1:{proxy.port}/"


async def test_what_is_sent_arrives_and_close_codes_are_recorded_both_ways() -> None:
    async with echo_behind_proxy() as (proxy, url):
        async with open_websocket(url) as socket:
            await socket.send("x" * 300_000)
            assert await socket.receive() == "x" * 300_000
            await socket.close(4321, "bye")
        assert proxy.close_codes == {"to_server": [4321], "to_client": [4321]}
        assert proxy.connections == 1


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_cut_or_reset_link_is_lost_without_a_code(how: str) -> None:
    async with echo_behind_proxy() as (proxy, url), open_websocket(url) as socket:
        await socket.send("here")
        await socket.receive()
        assert getattr(proxy, how)() == 1
        with waiting_for("the loss of the connection to be told", 5), pytest.raises(ConnectionLost) as lost:
            await socket.receive()
        assert lost.value.code is None


async def test_a_stalled_link_is_silent_but_open_and_goes_on_when_resumed() -> None:
    async with echo_behind_proxy() as (proxy, url), open_websocket(url) as socket:
        proxy.stall()
        await socket.send("held")
        with trio.move_on_after(0.2) as scope:
            await socket.receive()
        assert scope.cancelled_caught
        assert proxy.links == 1
        proxy.resume()
        with waiting_for("what was held to go on", 5):
            assert await socket.receive() == "held"


async def test_a_delay_comes_on_top_of_each_way_and_does_not_add_up() -> None:
    async with echo_behind_proxy() as (proxy, url), open_websocket(url) as socket:
        proxy.delay(0.1)
        started = trio.current_time()
        for number in range(20):
            await socket.send(str(number))
        received = [await socket.receive() for _ in range(20)]
        took = trio.current_time() - started
        assert received == [str(number) for number in range(20)]
        assert 0.2 <= took < 1.0


async def test_a_throttled_link_is_as_slow_as_said() -> None:
    async with echo_behind_proxy() as (proxy, url), open_websocket(url, close_timeout_seconds=0.2) as socket:
        proxy.throttle(100_000)
        started = trio.current_time()
        await socket.send("x" * 20_000)
        assert len(await socket.receive()) == 20_000
        assert trio.current_time() - started >= 0.2


async def test_refused_connections_fail_until_accepted_again() -> None:
    async with echo_behind_proxy() as (proxy, url):
        proxy.refuse()
        with pytest.raises(ConnectFailed, match=r"ended the connection|cannot connect"):
            async with open_websocket(url):
                pytest.fail("must not open")
        proxy.accept()
        async with open_websocket(url):
            pass


def test_the_process_obeys_its_lines() -> None:
    argv = [sys.executable, "-m", "sandbox", "proxy", "--target", "127.0.0.1:9", "--exit-with-parent", str(os.getpid())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
            process.stdin.write('{"do":"stall"}\nnonsense\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["did"] == "stall"
            assert "error" in json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("chunk", [1, 3, 7, 10_000])
def test_close_codes_are_read_whatever_the_chunks(chunk: int) -> None:
    data = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"
    data += (
        encode_frame(TEXT, b"\x88\x02\x03\xe8" * 100) + encode_frame(TEXT, b"") + encode_frame(CLOSE, b"\x0f\xa1why")
    )
    data += encode_frame(CLOSE, b"")
    reader = CloseCodeReader()
    for start in range(0, len(data), chunk):
        reader.feed(data[start : start + chunk])
    assert reader.codes == [4001, None]


def test_plain_http_is_passed_over() -> None:
    reader = CloseCodeReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x88\x02\x03\xe8")
    assert reader.codes == []
