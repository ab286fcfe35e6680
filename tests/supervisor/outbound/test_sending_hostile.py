"""Outbound, delivery, streams: what ends the process, waits for ever, or costs what it should not."""

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from bus.records.records import SCHEMA_VERSION, LiveDelta, OutboxRecord, pack_live
from bus.transport.client import RedisUnavailable
from crypto.streams import StreamKey
from supervisor.outbound.streams import LiveStream
from supervisor.relay.frames import MessageError, StreamAbort, StreamDelta, StreamStart
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests import waiting
from tests.supervisor.builders import KEYS, WAIT_SECONDS, Core, reply_to_next, sending, until
from tests.supervisor.outbound.test_outbound import OTHER_CONVERSATION, dead_reasons, scene, sent_message
from tests.supervisor.person import AGENT, CONVERSATION, PERSON


@pytest.mark.parametrize("retry_after", [1e308, -1.0, 1e12])
async def test_a_refusal_for_an_absurd_time_is_survived_and_bounded(tmp_path: Path, retry_after: float) -> None:
    """1e308 s: OverflowError in delivery, the process ends; 1e12 s: the conversation never sends again."""
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            core.delivery.heard(MessageError("429", sent_message(frame).client_message_id, retry_after=retry_after))
            await trio.testing.wait_all_tasks_blocked(0.05)
            score = await core.client.command("ZSCORE", core.keys.resend_times, CONVERSATION)
            assert isinstance(score, bytes)
            assert float(score) - await core.store.now_ms() <= 300_000


async def test_an_outbox_record_that_cannot_be_read_costs_its_conversation_only(tmp_path: Path) -> None:
    """As after a step back to an older program: BadRecord out of delivery, at every start again."""
    async with scene(tmp_path, pauses=Pauses(due_look=0.02)) as (core, ada):
        newer = OutboxRecord(SCHEMA_VERSION + 1, "c", OTHER_CONVERSATION, "text", "", None, "h2a", "text", 1)
        await core.client.command(
            "HSET", core.keys.sent(OTHER_CONVERSATION), "r", msgspec.msgpack.encode(newer), "cmid", "c"
        )
        await core.client.command("ZADD", core.keys.resend_times, 1, OTHER_CONVERSATION)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        with capture_logs() as said:
            async with sending(core):
                [frame] = await core.connection.wait_sent(1)
                await waiting.until(lambda: any(line["event"] == "outbox: not readable" for line in said), WAIT_SECONDS)
        assert ada.read(frame)["text"] == "an answer"


async def test_a_session_record_that_does_not_open_costs_its_own_replies_only(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await core.client.command("HSET", core.keys.session(PERSON, "phone"), "b", b"damaged", "v", 9)
        await reply_to_next(core, "an answer")
        async with sending(core):
            await trio.testing.wait_all_tasks_blocked(0.2)  # SealBroken came out of outbound before


async def test_a_person_whom_the_relay_no_longer_knows_costs_that_reply_only(tmp_path: Path) -> None:
    """404 for ever: rule 13, nothing blocks a conversation for ever. RestFailed.is_final is asked by nobody."""
    async with scene(tmp_path, pauses=Pauses(reply_retry=0.01, reply_relay_retry=0.01)) as (core, _):
        await core.client.command("DEL", core.keys.session(PERSON, "phone"))
        core.rest.fail_next("devices", *[RestFailed("devices", 404, "not_found")] * 1000)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):

            async def dropped() -> bool:
                return await dead_reasons(core) == ["no_usable_device"]

            await until(dropped, 2)


async def test_the_ping_for_an_answer_does_not_hold_up_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`post` between commit and send: Redis away there, and the reply waits 10 s for its resend."""
    async with scene(tmp_path) as (core, _):

        async def away(*_: object) -> None:
            raise RedisUnavailable("away")

        monkeypatch.setattr("supervisor.outbound.dispatch.unanswered", lambda _: 50)
        monkeypatch.setattr(core.outbox, "post", away)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1, seconds=2)


async def test_waiting_for_the_rate_asks_the_relay_nothing(tmp_path: Path) -> None:
    """Also for an owner row that was read before its first fetch."""
    async with scene(tmp_path) as (core, _):
        core.rate_line.per_second = 5.0
        owner = await core.owners.find(PERSON)
        assert owner is not None
        unfetched = msgspec.structs.replace(owner, devices_fetched_ms=0)
        await core.vault.put_owner(PERSON, await core.vault.owner(PERSON), unfetched.encode())
        await core.client.command("HSET", core.keys.rate, "tokens", "-1", "at", await core.store.now_ms())
        core.rest.calls.clear()
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1)
        assert core.rest.calls.count("devices") <= 1


START = StreamStart("stream", CONVERSATION, "sealed")


def live_stream(core: Core) -> LiveStream:
    return LiveStream(
        "stream",
        CONVERSATION,
        answer=("job", "0"),
        to=PERSON,
        key=StreamKey(bytes(32)),
        connection_number=core.connection.number,
    )


def delta(seq: int, text: str = "x") -> bytes:
    return pack_live(LiveDelta(CONVERSATION, "stream", seq, text), key=KEYS.bus, agent_id=AGENT)


async def test_a_delta_that_is_too_large_ends_its_stream_and_not_the_process(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _), trio.open_nursery() as nursery:
        core.connection.connect()
        nursery.start_soon(core.streams.run)
        await core.streams.begin(live_stream(core), START)
        core.streams.heard(delta(0, "A" * 2_000_000))
        assert isinstance((await core.connection.wait_sent(2))[1], StreamAbort)
        nursery.cancel_scope.cancel()


async def test_deltas_that_come_while_the_early_ones_go_out_are_no_gap(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _), trio.open_nursery() as nursery:
        core.connection.connect()
        nursery.start_soon(core.streams.run)
        for seq in range(3):
            core.streams.heard(delta(seq))
        await trio.testing.wait_all_tasks_blocked()
        for seq in range(3, 6):
            core.streams.heard(delta(seq))
        await core.streams.begin(live_stream(core), START)
        await trio.testing.wait_all_tasks_blocked()
        assert [frame.seq for frame in core.connection.sent if isinstance(frame, StreamDelta)] == list(range(6))
        nursery.cancel_scope.cancel()


async def test_a_reply_whose_commit_redis_could_not_take_is_tried_again_soon(tmp_path: Path) -> None:
    """A moment without Redis that the reader does not notice (full, busy): only after a lease of silence, 15 s and more."""
    async with scene(tmp_path, pauses=Pauses(reply_retry=0.05, reply_relay_retry=0.05)) as (core, _):
        commit, tries = core.outbox.commit, []

        async def busy_once(**arguments: object) -> object:
            tries.append(1)
            if len(tries) == 1:
                raise RedisUnavailable("BUSY Redis is busy running a script")
            return await commit(**arguments)  # type: ignore[arg-type]

        core.outbox.commit = busy_once  # type: ignore[method-assign,assignment]
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1, seconds=3)
