"""A name server that answers late, never or no: whoever asks is served as before, and nobody else waits for it."""

import socket
import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from host.name_lookups import JOINED_SECONDS, MOST_LOOKUPS, look_names_up_apart

pytestmark = pytest.mark.pure

FOUND: list[object] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]
WITHIN_SECONDS = 20.0


class NameServer:
    """Takes the place of libc's. `asked`: the names, once for each thread that asks; all of them wait until it `answers`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.refuses = False
        self._begun = threading.Semaphore(0)

    async def until_asked(self) -> None:
        """Until one thread more has asked than at the last call."""
        assert await trio.to_thread.run_sync(self._begun.acquire, True, WITHIN_SECONDS)

    def getaddrinfo(self, host: bytes | str, _port: object, *_how: int) -> list[object]:
        if isinstance(host, str) or host[:1].isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "no address")  # trio's first try: it is a name
        self.asked.append(host.decode())
        self._begun.release()
        assert self.answers.wait(WITHIN_SECONDS)
        if self.refuses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return FOUND


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answers.set()  # or their threads would live on


async def look_up(name: str = "relay.test") -> object:
    return await trio.socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)


async def give_up(name: str) -> None:
    with trio.move_on_after(5.0):
        await look_up(name)


async def test_while_no_name_is_told_threads_are_left_for_everything_else(
    names: NameServer, autojump_clock: MockClock
) -> None:
    look_names_up_apart()
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(give_up, f"relay{number}.test")
    for _ in range(MOST_LOOKUPS):
        await names.until_asked()
    assert len(names.asked) == MOST_LOOKUPS
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    assert await trio.to_thread.run_sync(lambda: "written") == "written"


async def test_one_name_is_asked_for_once_by_all_who_want_it_now(names: NameServer, autojump_clock: MockClock) -> None:
    look_names_up_apart()
    await give_up("relay.test")
    await names.until_asked()
    found = list[object]()

    async def note() -> None:
        found.append(await look_up())

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(note)
        await trio.testing.wait_all_tasks_blocked()
        names.answers.set()
    assert (found, names.asked) == ([FOUND] * 50, ["relay.test"])
    assert await look_up() == FOUND
    assert names.asked == ["relay.test", "relay.test"], "nothing is remembered"


async def test_what_hangs_for_long_is_asked_anew(names: NameServer, autojump_clock: MockClock) -> None:
    look_names_up_apart()
    for _ in range(2):
        await give_up("relay.test")
        await names.until_asked()
        await trio.sleep(JOINED_SECONDS)
    assert names.asked == ["relay.test", "relay.test"]


async def test_a_refusal_is_each_ones_own(names: NameServer) -> None:
    look_names_up_apart()
    names.refuses = True
    names.answers.set()
    for _ in range(2):
        with pytest.raises(socket.gaierror) as failed:
            await look_up()
        assert failed.value.errno == socket.EAI_AGAIN
