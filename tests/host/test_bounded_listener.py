"""A listener has so many clients at once; the others wait outside and are served when there is room."""

import socket
import urllib.request
from contextlib import ExitStack

import trio
import trio.testing

from host.bounded_listener import BoundedListener
from supervisor.observe import http
from supervisor.observe.health import Health
from supervisor.observe.metrics import Metrics
from tests.waiting import waiting_for

MOST = 3
CLIENTS = 8
WAIT_SECONDS = 10.0


def _socket() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


async def test_as_many_as_there_is_room_for_are_served_and_the_others_after_them() -> None:
    listener, port = _socket()
    listener.setblocking(False)
    accepting = BoundedListener(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), MOST)
    served: list[int] = []
    at_once: list[int] = []
    inside = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal inside
        inside += 1
        at_once.append(inside)
        said = await stream.receive_some(1)
        served.append(said[0])
        inside -= 1

    with waiting_for("the clients to be served, as many at a time as are allowed", WAIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accepting.serve, serve)
            clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(CLIENTS)]
            while inside < MOST:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert inside == MOST
            for number, client in enumerate(clients):
                await client.send_all(bytes([number]))
            while len(served) < CLIENTS:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert max(at_once) == MOST
    assert sorted(served) == list(range(CLIENTS))
    for client in clients:
        await client.aclose()


async def test_a_client_that_fails_or_is_cut_off_leaves_its_place() -> None:
    listener, port = _socket()
    listener.setblocking(False)
    accepting = BoundedListener(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), 1)
    seen = 0

    async def serve(_stream: trio.SocketStream) -> None:
        nonlocal seen
        seen += 1
        with trio.move_on_after(0):
            await trio.sleep_forever()

    with waiting_for("each client to be served", WAIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accepting.serve, serve)
            for _ in range(CLIENTS):
                async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                    assert await client.receive_some(1) == b""
            nursery.cancel_scope.cancel()
    assert seen == CLIENTS


def test_silent_clients_take_no_probe_its_answer() -> None:
    listener, port = _socket()
    server = http.start_http(listener, Health(), Metrics(), http.ClientBounds(most=MOST))
    with ExitStack() as opened:
        opened.callback(server.stop)
        drippers = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(2 * MOST)]
        for dripper in drippers[:MOST]:
            dripper.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        for _ in range(2 * MOST):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_SECONDS) as answer:
                assert answer.status == 200
        for dripper in drippers:
            dripper.settimeout(WAIT_SECONDS)
            assert _is_hung_up_on(dripper)


def _is_hung_up_on(client: socket.socket) -> bool:
    """Whether the server has hung up: of a client whose bytes it has not read by then the kernel resets the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_client_has_its_place_for_so_long_and_no_longer() -> None:
    listener, port = _socket()
    server = http.start_http(listener, Health(), Metrics(), http.ClientBounds(seconds=0.5, read_seconds=3600))
    with socket.create_connection(("127.0.0.1", port)) as dripper:
        dripper.settimeout(WAIT_SECONDS)
        dripper.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        assert _is_hung_up_on(dripper)
    server.stop()
