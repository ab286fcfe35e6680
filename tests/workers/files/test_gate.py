"""The client of the file gate on a real socket: its four calls and their proofs, and whatever a gate may answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio

from bus.files.calls import Announced, CallFailure
from bus.settings.files_place import FilesPlace
from tests.workers.files.builders import Bitten
from tests.workers.files.gate_server import KEY, GateServer, answer, gate_server, raw, refusal
from workers.files.gate import UNANSWERED, GateClient, GateFailed

ANNOUNCED = Announced("upload-1", "a.ticket")


def client(server: GateServer) -> GateClient:
    return GateClient(server.place, KEY)


def pieces(content: bytes = b"sealed") -> AsyncIterator[bytes]:
    return Bitten(content)


async def got(gate: GateClient) -> bytes:
    async with gate.get("file-1", 6, 0) as given:
        return b"".join([piece async for piece in given.pieces])


CALLS: dict[str, Callable[[GateClient], Awaitable[object]]] = {
    "announce": lambda gate: gate.announce("c", 16),
    "put": lambda gate: gate.put(ANNOUNCED, 6, pieces),
    "confirm": lambda gate: gate.confirm("upload-1", "0" * 64),
    "get": got,
}


async def failure_of(server: GateServer, call: str = "announce") -> GateFailed:
    with pytest.raises(GateFailed) as failed:
        await CALLS[call](client(server))
    return failed.value


async def test_an_upload_is_announced_put_and_confirmed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    async with gate_server(tmp_path) as server:
        server.replies = [
            answer(200, b'{"upload_id":"upload-1","ticket":"a.ticket"}'),
            answer(200, b'{"received":1280000}'),
            answer(200, b'{"attachment_id":"file-1"}'),
        ]
        gate = client(server)
        announced = await gate.announce("c", len(content))
        await gate.put(announced, len(content), lambda: pieces(content))
        assert await gate.confirm("upload-1", "0" * 64) == "file-1"
    announce, put, confirm = server.asked
    assert (announce.method, announce.target, announce.body) == (
        "POST",
        "/v1/uploads",
        b'{"conversation_id":"c","size":1280000}',
    )
    assert (put.method, put.target, put.headers["hashee-ticket"], put.body) == (
        "PUT",
        "/v1/uploads/upload-1",
        "a.ticket",
        content,
    )
    assert (confirm.target, confirm.body) == ("/v1/confirm", b'{"upload_id":"upload-1","sha256":"%b"}' % (b"0" * 64))
    nonces = {one.headers["hashee-proof"].split(" ")[1] for one in server.asked}
    assert len(nonces) == 3


@pytest.mark.parametrize(
    ("status", "headers", "range_"),
    [
        (200, {}, (0, 0, False)),
        (200, {"accept_ranges": "bytes"}, (0, 0, True)),
        (206, {"content_range": "bytes 2-5/6"}, (2, 2, True)),
        (200, {}, (2, 0, False)),
    ],
)
async def test_a_file_is_got_from_a_byte_on(
    tmp_path: Path, status: int, headers: dict[str, str], range_: tuple[int, int, bool]
) -> None:
    first_byte, begins, takes_ranges = range_
    async with gate_server(tmp_path) as server:
        server.replies = [answer(status, b"sealed"[begins:], **headers)]
        async with client(server).get("file-1", 6, first_byte) as given:
            assert (given.first_byte, given.takes_ranges) == (begins, takes_ranges)
            assert b"".join([piece async for piece in given.pieces]) == b"sealed"[begins:]
    [asked] = server.asked
    assert asked.target == "/v1/files/file-1?size=6"
    assert asked.headers.get("range") == ("bytes=2-" if first_byte else None)


async def test_a_long_file_comes_whole_through_memory_that_is_used_again(tmp_path: Path) -> None:
    content = b"".join(b"%07d " % number for number in range(400_000))
    found = bytearray()
    async with gate_server(tmp_path) as server:
        server.replies = [answer(200, content)]
        async with client(server).get("file-1", len(content), 0) as given:
            async for piece in given.pieces:
                found += piece
    assert bytes(found) == content


async def test_a_long_file_that_is_cut_is_no_file(tmp_path: Path) -> None:
    came = [0]

    async def read(gate: GateClient) -> None:
        async with gate.get("file-1", 4_000_000, 0) as given:
            async for piece in given.pieces:
                came[0] += len(piece)

    async with gate_server(tmp_path) as server:
        server.replies = [raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + bytes(3_000_000))]
        with pytest.raises(GateFailed, match="broke off") as failed:
            await read(client(server))
    assert (failed.value.reason, failed.value.retry, came) == (UNANSWERED, True, [3_000_000])


@pytest.mark.parametrize("call", CALLS)
async def test_a_refusal_says_why_and_whether_to_come_again(tmp_path: Path, call: str) -> None:
    async with gate_server(tmp_path) as server:
        server.replies = [
            refusal(CallFailure.RELAY_LIMIT, status=429, retry=True, retry_after=7.0),
            refusal(CallFailure.REFUSED, status=422),
        ]
        busy, refused = await failure_of(server, call), await failure_of(server, call)
    assert (busy.reason, busy.message, busy.retry, busy.retry_after) == ("relay_limit", "words", True, 7.0)
    assert (refused.reason, refused.retry) == ("refused", False)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", UNANSWERED),
        (b"HTTP/1.1 200 OK\r\ncontent-le", UNANSWERED),
        (b"not HTTP at all\r\n\r\n", UNANSWERED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", UNANSWERED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", CallFailure.BAD_ANSWER),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", CallFailure.BAD_ANSWER),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"upload_id":"\xff"}', CallFailure.BAD_ANSWER),
        (b'HTTP/1.1 500 Oops\r\ncontent-length: 26\r\n\r\n{"error":{"reason":"\xff\xff"}}', CallFailure.BAD_ANSWER),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 6\r\n\r\n<html>", CallFailure.BAD_ANSWER),
        (b"HTTP/1.1 302 Go\r\nlocation: http://elsewhere\r\ncontent-length: 0\r\n\r\n", CallFailure.BAD_ANSWER),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000, CallFailure.BAD_ANSWER),
    ],
)
async def test_an_answer_that_is_none_is_a_failure_that_may_pass(tmp_path: Path, said: bytes, reason: str) -> None:
    async with gate_server(tmp_path) as server:
        server.replies = [raw(said)]
        failed = await failure_of(server)
    assert (failed.reason, failed.retry) == (reason, True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("announce", {"upload_id": "../x", "ticket": "a.ticket"}),
        ("announce", {"upload_id": "", "ticket": "a.ticket"}),
        ("announce", {"upload_id": "upload-1", "ticket": "a\r\nhashee-proof: x"}),
        ("announce", {"upload_id": "upload-1", "ticket": "ä"}),
        ("announce", {"upload_id": "upload-1", "ticket": "a.ticket", "more": "x" * 70_000}),
        ("confirm", {"attachment_id": "../keys"}),
        ("confirm", {"attachment_id": "x" * 129}),
        ("confirm", {"attachment_id": "file-1", "more": "x" * 70_000}),
    ],
)
async def test_what_a_gate_names_is_a_name_or_its_answer_is_none(
    tmp_path: Path, call: str, said: dict[str, str]
) -> None:
    async with gate_server(tmp_path) as server:
        server.replies = [answer(200, msgspec.json.encode(said))]
        failed = await failure_of(server, call)
    assert (failed.reason, failed.retry) == (CallFailure.BAD_ANSWER, True)


async def test_a_cut_file_is_a_failure_behind_what_came(tmp_path: Path) -> None:
    async with gate_server(tmp_path) as server:
        server.replies = [raw(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsea")]
        assert (await failure_of(server, "get")).reason == UNANSWERED


async def test_an_answer_before_the_body_is_heard_and_the_rest_is_not_sent(tmp_path: Path) -> None:
    async with gate_server(tmp_path) as server:
        server.answers_early = True
        server.replies = [refusal(CallFailure.BAD_TICKET, status=403)]
        with pytest.raises(GateFailed, match="bad_ticket"):
            await client(server).put(ANNOUNCED, 50_000_000, lambda: pieces(bytes(50_000_000)))


@pytest.mark.parametrize("said", [5, 7])
async def test_another_number_of_bytes_than_was_announced_is_noticed_here(tmp_path: Path, said: int) -> None:
    async with gate_server(tmp_path) as server:
        server.replies = [answer(200, b"{}")]
        with pytest.raises(GateFailed, match="wrong_length"):
            await client(server).put(ANNOUNCED, said, pieces)


async def test_no_gate_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    for place in (FilesPlace(socket_path=tmp_path / "none.sock"), FilesPlace(host="127.0.0.1", port=1)):
        with pytest.raises(GateFailed) as failed:
            await GateClient(place, KEY).announce("c", 16)
        assert (failed.value.reason, failed.value.retry) == (UNANSWERED, True)


async def test_a_gate_on_a_port_is_asked_by_its_name(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = FilesPlace(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
    server = GateServer(place, [answer(200, b'{"attachment_id":"file-1"}')])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        assert await client(server).confirm("upload-1", "0" * 64) == "file-1"
        nursery.cancel_scope.cancel()
    assert server.asked[0].headers["host"] == f"127.0.0.1:{place.port}"
    assert server.unproven == []


async def test_a_gate_in_which_nothing_moves_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with gate_server(tmp_path) as server:

        async def silence(_asked: object, _stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        server.replies = [silence]
        assert (await failure_of(server)).reason == UNANSWERED
    assert 59 <= trio.current_time() <= 61
