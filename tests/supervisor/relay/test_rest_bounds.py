"""REST answers that are far too large, compressed or not: what they may weigh, and that what is behind them still comes."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest
import trio

from supervisor.relay.frames import MessageNew, Relation
from supervisor.relay.rest import ASKED_AT_ONCE, PAGE_BYTES, POLL_LIMIT, Page, Rest, RestFailed, open_rest
from supervisor.settings.secrets import Secret
from tests.supervisor.doubles import relations_of
from tests.supervisor.person import AGENT
from tests.supervisor.web_server import Asked, response, web_server

MIB = 1 << 20
TOKEN = Secret("hsk_x")


@contextmanager
def held_at_most(most_bytes: int) -> Iterator[None]:
    """What Python holds within the block, at its highest."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def entry(number: int, payload: str = "AAAA") -> bytes:
    return json.dumps(
        {
            "type": "message.new",
            "conversation_id": "c",
            "message_id": f"m{number}",
            "sender_id": "s",
            "sender_type": "human",
            "content_type": "text",
            "encrypted_payload": payload,
            "conversation_seq": number,
            "created_at": "2026-01-01T00:00:00Z",
        }
    ).encode()


def listed(*entries: bytes) -> bytes:
    return b'{"data":[' + b",".join(entries) + b'],"next_cursor":null}'


class History:
    """A relay that keeps messages and gives what comes after a cursor, as many as it is asked for."""

    def __init__(self, *entries: bytes, compressed: bool = False) -> None:
        self.entries = list(entries)
        self.limits: list[int] = []
        self.connections = set[trio.SocketStream]()
        self._compressed = compressed

    async def answer(self, asked: Asked, stream: trio.SocketStream) -> None:
        self.connections.add(stream)
        limit = int(asked.parameters["limit"])
        self.limits.append(limit)
        start = int(asked.parameters["cursor"].removeprefix("m")) if "cursor" in asked.parameters else 0
        body = listed(*self.entries[start : start + limit])
        if self._compressed:
            await stream.send_all(response(gzip.compress(body, 1), encoding="gzip"))
        else:
            await stream.send_all(response(body))


async def pages(rest: Rest) -> list[Page]:
    """Until an empty one, which is not among them."""
    found: list[Page] = []
    while True:
        page = await rest.poll(found[-1].last_id if found else None)
        if not page.frames:
            return found
        found.append(page)


def payloads(found: list[Page]) -> list[int]:
    return [len(frame.encrypted_payload) for page in found for frame in page.frames if isinstance(frame, MessageNew)]


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_hundred_of_the_largest_messages_come_in_pieces_and_then_in_whole_pages_again(compressed: bool) -> None:
    """They would be 100 MiB at once."""
    large = [entry(number, "A" * MIB) for number in range(1, 41)]
    small = [entry(number) for number in range(41, 400)]
    history = History(*large, *small, compressed=compressed)
    async with web_server(history.answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        found = await pages(rest)
    assert payloads(found) == [MIB] * 40 + [4] * 359
    assert max(sum(payloads([page])) for page in found) < PAGE_BYTES + 2 * MIB
    assert min(history.limits) < POLL_LIMIT
    assert history.limits[-1] == POLL_LIMIT


async def test_pages_of_small_messages_keep_their_connection() -> None:
    history = History(*(entry(number) for number in range(1, 2 * POLL_LIMIT + 1)))
    async with web_server(history.answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        assert len(await pages(rest)) == 2
    assert len(history.connections) == 1


async def test_a_message_that_is_far_too_large_is_come_past_and_held_by_nobody() -> None:
    """Its ids are kept and its payload is not, which makes it malformed; what is behind it comes."""
    history = History(entry(1), entry(2, "A" * 100 * MIB), entry(3))
    async with web_server(history.answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        body = response(listed(*history.entries))

        async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
            await stream.send_all(memoryview(body))

        async with web_server(answer) as other_url, open_rest(other_url, AGENT, TOKEN) as other:
            with held_at_most(16 * MIB):
                page = await other.poll(None)
        del rest, url
    assert [frame.message_id for frame in page.frames if isinstance(frame, MessageNew)] == ["m1", "m2", "m3"]
    assert payloads([page]) == [4, 0, 4]


async def test_a_compressed_page_is_held_by_its_entries_alone() -> None:
    """600 KiB of gzip that were 1.27 GB of memory."""
    bomb = gzip.compress(b'{"data":[' + b"[]," * (200 * MIB // 3) + b"[]]}", 6)
    assert len(bomb) < MIB

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(bomb, encoding="gzip"))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with held_at_most(8 * MIB):
            page = await rest.poll(None)
    assert page.frames == [None] * POLL_LIMIT
    assert page.last_id is None


@pytest.mark.parametrize("call", ["devices", "agent_keys", "group_key"])
async def test_what_is_small_by_its_nature_is_refused_when_it_is_not(call: str) -> None:
    body = {"devices": listed(*[b'{"device_id":"d"}'] * MIB)}.get(
        call, b'{"data":{"envelope":"' + b"A" * 20 * MIB + b'"}}'
    )
    packed = gzip.compress(body)

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(packed, encoding="gzip"))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with held_at_most(8 * MIB), pytest.raises(RestFailed, match=r"answer over [0-9]+ bytes"):
            await getattr(rest, call)("u")


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br"])
async def test_an_encoding_that_was_not_asked_for_is_named_and_not_opened(encoding: str) -> None:
    async def answer(asked: Asked, stream: trio.SocketStream) -> None:
        assert asked.headers["accept-encoding"] == "gzip"
        await stream.send_all(response(gzip.compress(listed()), encoding=encoding))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with pytest.raises(RestFailed, match=f"not asked for: '{encoding}'"):
            await rest.poll(None)


@pytest.mark.parametrize(
    "body",
    [b"no gzip at all", gzip.compress(b'{"data":[')[:-9], gzip.compress(listed())[:-20]],
    ids=[
        "none",
        "cut",
        "cut far",
    ],  # what is packed holds the time, and a test's name must be the same in every process
)
async def test_gzip_that_is_none_or_does_not_end_is_a_failed_call(body: bytes) -> None:
    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(body, encoding="gzip"))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with pytest.raises(RestFailed):
            await rest.devices("u")


async def test_what_follows_the_end_of_a_compressed_answer_is_not_kept_and_ends() -> None:
    """zlib keeps whatever is given to it behind the end; blocks that hold nothing open into nothing."""
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(listed()[:5]) + packer.flush(zlib.Z_FULL_FLUSH)
    nothing = (b"\x00\x00\x00\xff\xff" * 13108, gzip.compress(listed()) + b"\x00" * 65536)
    for first, filler in ((start, nothing[0]), (nothing[1], b"\x00" * 65536)):

        async def answer(
            _asked: Asked, stream: trio.SocketStream, first: bytes = first, filler: bytes = filler
        ) -> None:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + first)
            while True:
                await stream.send_all(filler)

        async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
            with held_at_most(4 * MIB), pytest.raises(RestFailed, match="answer over"):
                await rest.devices("u")


async def test_a_list_that_is_cut_short_is_a_failed_call_and_no_shorter_list() -> None:
    """Two of three devices: the third would get no answer."""

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(b'{"data":[{"device_id":"a"},{"device_id":"b"},{"dev'))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with pytest.raises(RestFailed, match="does not end"):
            await rest.devices("u")


@pytest.mark.parametrize(
    "bad",
    [rb'{"user_id":"\ud800"}', b'{"user_id":1e400}', b'{"user_id":' + b"[" * 5000 + b"]" * 5000 + b"}", b"}{", b""],
)
async def test_one_bad_entry_hides_no_other(bad: bytes) -> None:
    body = listed(b'{"user_id":"a"}', bad, b'{"user_id":"b"}')
    if bad == b"}{":
        body = listed(b'{"user_id":"a"}', b'{"user_id":"b"}', b'{"user_id":}')

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(body))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        assert [relation.user_id for relation in await relations_of(rest)] == ["a", "b"]


async def test_nothing_that_an_answer_sets_is_kept_or_sent_again() -> None:
    """A cookie of another name with each answer: they would be sent, and kept, for ever."""
    sent: list[str | None] = []

    async def answer(asked: Asked, stream: trio.SocketStream) -> None:
        sent.append(asked.headers.get("cookie"))
        await stream.send_all(response(listed(), headers=f"Set-Cookie: n{len(sent)}={'v' * 4000}; Max-Age=9999999"))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        for _ in range(3):
            await rest.poll(None)
    assert sent == [None, None, None]


async def test_asking_for_the_sake_of_messages_never_keeps_polling_waiting() -> None:
    asking = trio.Event()
    under_way = 0

    async def answer(asked: Asked, stream: trio.SocketStream) -> None:
        nonlocal under_way
        if asked.path.endswith("/devices"):
            under_way += 1
            if under_way == ASKED_AT_ONCE:
                asking.set()
            await trio.sleep_forever()
        await stream.send_all(response(listed()))

    async with (
        web_server(answer) as url,
        open_rest(url, AGENT, TOKEN) as rest,
        trio.open_nursery() as nursery,
    ):
        for number in range(3 * ASKED_AT_ONCE):
            nursery.start_soon(rest.devices, f"u{number}")
        await asking.wait()
        await rest.poll(None)
        await relations_of(rest)
        assert under_way == ASKED_AT_ONCE
        nursery.cancel_scope.cancel()


async def test_of_many_relations_only_what_counts_is_held() -> None:
    """Names of 60 KB each: 60 MB of nobody's concern."""
    body = response(
        listed(*[b'{"user_id":"u%d","display_name":"%b","scopes":["chat"]}' % (n, b"x" * 60_000) for n in range(1000)])
    )

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(memoryview(body))

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with held_at_most(4 * MIB):
            found = await relations_of(rest)
    assert [(one.user_id, one.scopes, one.display_name) for one in found] == [
        (f"u{number}", ("chat",), None) for number in range(1000)
    ]


@pytest.mark.parametrize(("people", "measure"), [(10_000, partial(held_at_most, MIB)), (100_000, nullcontext)])
async def test_however_many_people_are_told_of_one_by_one_and_none_is_kept(
    people: int, measure: Callable[[], AbstractContextManager[None]]
) -> None:
    """Kept they would take 6 MB, and 60. Measured it takes several times as long: the many are only counted."""
    body = response(
        listed(*[b'{"user_id":"u%d","public_key":"%044d","scopes":["chat"]}' % (n, n) for n in range(people)])
    )
    told = 0

    async def answer(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(memoryview(body))

    async def note(relation: Relation) -> None:
        nonlocal told
        assert relation.user_id == f"u{told}"
        told += 1

    async with web_server(answer) as url, open_rest(url, AGENT, TOKEN) as rest:
        with measure():
            await rest.relations(note)
    assert told == people
