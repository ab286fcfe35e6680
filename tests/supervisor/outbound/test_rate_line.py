"""Who waits for the platform's rate of sends goes in the order of arrival: nobody is overtaken by one that came later, or begins again behind."""

from pathlib import Path

import trio
import trio.testing

from bus.steps.outbox import Commit, Committed
from bus.transport.clock import redis_ms
from supervisor.observe.metrics import Metrics
from supervisor.outbound.decisions import NextStep
from supervisor.outbound.rate_line import RateLine
from tests.redis_server import redis_server
from tests.supervisor.builders import Core, open_core, reply_to_next, sending, until
from tests.supervisor.doubles import FakeRest
from tests.supervisor.outbound.test_outbound import sent_message
from tests.supervisor.person import Person

WAIT_MS = 200
CONVERSATIONS = [f"01906abc-0000-7000-8000-0000000000d{number}" for number in range(8)]


class Bucket:
    """One send every 200 ms, as Redis answers; who was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.attempts = 0
        self.stale = set[str]()
        self._full_at = trio.current_time() + WAIT_MS / 1000

    async def attempt(self, name: str) -> Commit:
        """As the script does: one that was made with what has changed meanwhile takes nothing."""
        await trio.lowlevel.checkpoint()
        self.attempts += 1
        wait = self._full_at - trio.current_time()
        if wait > 1e-9:
            return Commit(Committed.WAIT, wait_ms=round(wait * 1000))
        if name in self.stale:
            self.stale.discard(name)
            return Commit(Committed.STALE)
        self._full_at = trio.current_time() + WAIT_MS / 1000
        self.sent.append(name)
        return Commit(Committed.COMMITTED)


async def send(line: RateLine, bucket: Bucket, name: str) -> None:
    """A reply on its way, as `Outbound` does it."""
    place, step = line.place(), NextStep.SEAL_AGAIN

    async def attempt() -> tuple[str, Commit]:
        return name, await bucket.attempt(name)

    while step is NextStep.SEAL_AGAIN:
        made, _, step = await line.commit(place, attempt)
        assert made == name
    assert step is NextStep.SEND


async def test_one_that_was_stale_at_its_turn_comes_before_those_that_came_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line, bucket = RateLine(Metrics()), Bucket()
    bucket.stale = {"first"}
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third", "fourth"):
            nursery.start_soon(send, line, bucket, name)
            await trio.testing.wait_all_tasks_blocked()
    assert bucket.sent == ["second", "first", "third", "fourth"]


async def test_one_that_comes_later_takes_no_turn_of_those_that_wait(autojump_clock: trio.testing.MockClock) -> None:
    """It comes in the moment in which the next send is allowed, and before whom it is meant for has woken."""
    line, bucket = RateLine(Metrics()), Bucket()
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(send, line, bucket, name)
            await trio.testing.wait_all_tasks_blocked()
        attempts = bucket.attempts
        nursery.start_soon(send, line, bucket, "later")
        await trio.testing.wait_all_tasks_blocked()
        assert bucket.attempts == attempts  # nor is Redis asked for nothing
    assert bucket.sent == ["first", "second", "later"]


async def test_what_waits_is_told_of_and_one_that_gives_up_holds_nobody(autojump_clock: trio.testing.MockClock) -> None:
    metrics = Metrics()
    line, bucket, gone = RateLine(metrics), Bucket(), trio.CancelScope()

    async def give_up() -> None:
        with gone:
            await send(line, bucket, "gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(send, line, bucket, "stays")
        await trio.testing.wait_all_tasks_blocked()
        assert metrics.registry.get_sample_value("hashee_send_rate_wait_total") == 2
        gone.cancel()
    assert bucket.sent == ["stays"]


async def test_replies_of_one_device_that_wait_are_sent_as_they_came(tmp_path: Path) -> None:
    """Each send moves the session that all others were made with, so that each has to be made again and again."""
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest(), send_rate_per_second=10) as core:
            await core.prekeys.publish()
            ada = Person(core.rest)
            ada.meet()
            await empty_bucket(core)
            core.connection.connect()
            async with sending(core):
                for number, conversation in enumerate(CONVERSATIONS):
                    await core.push(ada.say(f"question {number}", seq=1, conversation=conversation))
                    await reply_to_next(core, f"answer {number}")

                    async def came(number: int = number) -> bool:
                        return core.taking.under_way + len(core.connection.sent) > number

                    await until(came)
                frames = await core.connection.wait_sent(len(CONVERSATIONS))
            assert [sent_message(frame).conversation_id for frame in frames] == CONVERSATIONS
            assert [ada.read(frame)["text"] for frame in frames] == [f"answer {number}" for number in range(8)]


async def empty_bucket(core: Core) -> None:
    """The platform's rate is used up."""
    await core.client.command("HSET", core.keys.rate, "tokens", "0", "at", str(await redis_ms(core.client)))
