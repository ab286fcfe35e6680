"""What was committed until it is acknowledged: resends of the same bytes, refusals, other processes' leavings."""

from pathlib import Path

import pytest
import trio
import trio.testing

from bus.records.records import SentNote
from bus.steps.outbox import Outbox
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisRefused, RedisUnavailable
from host.instance import Instance
from supervisor.outbound.decisions import MOST_CODE_CHARS
from supervisor.outbound.delivery import QUEUE_LENGTH
from supervisor.outbound.sender import resend_frame
from supervisor.relay.connection import NotConnected
from supervisor.relay.frames import Frame, MessageAck, MessageError
from supervisor.settings.pauses import Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import Core, dead_instance, open_core, reply_to_next, sending, until
from tests.supervisor.doubles import FakeRest
from tests.supervisor.outbound.test_outbound import acknowledge, dead_reasons, greeted, outbox, scene, sent_message
from tests.supervisor.person import CONVERSATION


async def test_a_resend_after_the_time_is_the_same_bytes(tmp_path: Path) -> None:
    async with scene(tmp_path, resend_seconds=0.05, pauses=Pauses(due_look=0.02)) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            first, second, third = await core.connection.wait_sent(3)
            assert first == second == third
            assert core.count("message_resent_total") >= 2
            acknowledge(core, first, 2)


async def test_what_a_person_says_right_after_our_answer_waits_for_its_acknowledgement_to_be_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        confirm, may_confirm = core.outbox.confirm, trio.Event()

        async def slow_confirm(*arguments: str | int, sent_ms: int | None) -> SentNote | None:
            await may_confirm.wait()
            return await confirm(*arguments, sent_ms=sent_ms)  # type: ignore[arg-type]

        monkeypatch.setattr(core.outbox, "confirm", slow_confirm)
        async with sending(core):
            [answer] = await core.connection.wait_sent(1)
            acknowledge(core, answer, 2)
            core.inbound.push(ada.say("and what follows at once", seq=3))
            await trio.testing.wait_all_tasks_blocked(0.05)
            may_confirm.set()

            async def taken_in() -> bool:
                return core.inbound.under_way == 0

            await until(taken_in)
            assert await core.jobs() == ["and what follows at once"]
            assert core.polls.times == 0


async def test_what_went_out_over_a_connection_in_doubt_is_anothers_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1)
            assert await core.outbox.due() == []
            core.connection.doubt()

            async def is_due() -> bool:
                return await core.outbox.due() == [CONVERSATION]

            await until(is_due)
            assert len(core.connection.sent) == 1, "not over this one"
            other = Outbox(core.client, core.store.keys.agent_id, "another")
            await other.leave_to_others()
            record = await other.resend(CONVERSATION)
            assert record is not None
            assert resend_frame(record) == await outbox(core), "the same bytes"
            await core.outbox.leave_to_others()
            assert await core.outbox.due() == [], "it is the other's now"


@pytest.mark.parametrize(
    "fault", [RedisUnavailable("gone"), RedisFull("OOM"), RedisDenied("NOPERM"), RedisRefused("WRONGTYPE")], ids=str
)
async def test_what_is_in_doubt_is_left_to_others_also_if_redis_fails_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: RedisFailed
) -> None:
    async with scene(tmp_path, pauses=Pauses(due_look=0.02)) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1)
            faults, leave = [fault, fault], core.outbox.leave_to_others

            async def leave_to_others() -> None:
                if faults:
                    raise faults.pop()
                await leave()

            monkeypatch.setattr(core.outbox, "leave_to_others", leave_to_others)
            core.connection.doubt()

            async def is_due() -> bool:
                return await core.outbox.due() == [CONVERSATION]

            await until(is_due)


async def test_what_was_committed_and_not_sent_goes_at_once_over_the_next_connection(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        send = core.connection.send

        async def lose(frame: Frame) -> None:
            core.connection.send = send  # type: ignore[method-assign]
            core.connection.disconnect()
            raise NotConnected

        core.connection.send = lose  # type: ignore[method-assign]  # gone between commit and send
        await reply_to_next(core, "an answer")
        async with sending(core):

            async def committed() -> bool:
                return await outbox(core) is not None

            await until(committed)
            stored = await outbox(core)
            assert core.connection.sent == []
            core.connection.connect()
            [frame] = await core.connection.wait_sent(1, seconds=2)  # the scan alone would take 10 s
        assert frame == stored
        assert ada.read(frame)["text"] == "an answer"


async def test_what_was_sent_and_not_acknowledged_goes_again_over_the_next_connection(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1)
            core.connection.disconnect()
            await trio.testing.wait_all_tasks_blocked()
            core.connection.connect()
            first, second = await core.connection.wait_sent(2, seconds=2)
        assert first == second


async def test_what_a_dead_process_committed_is_sent_at_once_by_the_next(tmp_path: Path) -> None:
    dead, rest = dead_instance(), FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, dead) as former:
            ada = await greeted(former)
            former.connection.connect()
            await reply_to_next(former, "an answer")
            async with sending(former):
                [first] = await former.connection.wait_sent(1)
        async with open_core(url, rest) as core:
            core.connection.connect()
            async with sending(core):
                [again] = await core.connection.wait_sent(1, seconds=2)
                assert again == first
                acknowledge(core, again, 2)
                await core.push(ada.say())
                await reply_to_next(core, "the next")
                assert ada.read((await core.connection.wait_sent(2))[1])["text"] == "the next"


async def test_what_a_living_process_committed_waits_for_its_own_resend(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        other_instance = Instance("00000000", 1, 1)
        async with open_core(core.url, core.rest, other_instance) as other:
            other.connection.connect()
            await reply_to_next(other, "an answer")
            async with sending(other):
                await other.connection.wait_sent(1)
            core.connection.connect()
            async with sending(core):
                await core.delivery.resend_orphans()
                assert core.connection.sent == []


async def test_a_429_postpones_the_same_bytes(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=Pauses(due_look=0.02)) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer", "the next")
        async with sending(core):
            [first] = await core.connection.wait_sent(1)
            cmid = sent_message(first).client_message_id
            core.delivery.heard(MessageError("429", cmid, "too many", retry_after=0.05))
            first, second = await core.connection.wait_sent(2, seconds=2)
            assert first == second
            acknowledge(core, second, 2)
            await core.connection.wait_sent(3)
        assert await dead_reasons(core) == []


@pytest.mark.parametrize("code", ["413", "not_found", "forbidden"])
async def test_a_final_refusal_is_a_dead_letter_and_the_next_reply_goes_on(tmp_path: Path, code: str) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "refused", "the next")
        async with sending(core):
            [refused] = await core.connection.wait_sent(1)
            core.delivery.heard(MessageError(code, sent_message(refused).client_message_id))
            _, following = await core.connection.wait_sent(2)
        assert ada.read(following)["text"] == "the next"
        assert await dead_reasons(core) == [f"refused_{code}"]
        assert core.count("dead_letter_total", kind="reply") == 1


async def test_answers_to_what_is_not_outstanding_change_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "one", "two")
        async with sending(core):
            [first] = await core.connection.wait_sent(1)
            for answer in (MessageAck("unknown", "m", 9), MessageError("413", "unknown"), MessageError("429", "")):
                core.delivery.heard(answer)
            acknowledge(core, first, 2)
            await core.connection.wait_sent(2)
            acknowledge(core, first, 2)
            core.delivery.heard(MessageError("413", sent_message(first).client_message_id))
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert await dead_reasons(core) == []
        assert len(await core.outbox.all()) == 1


async def test_a_send_of_an_older_version_or_of_a_dead_letter_has_no_note_and_is_confirmed_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            await core.client.command("HDEL", core.keys.sent(CONVERSATION), "note")
            acknowledge(core, frame, 2)
            await until(lambda: is_counted_as_sent(core))  # which is later than that it is gone from Redis
        assert await is_empty(core)


async def is_counted_as_sent(core: Core) -> bool:
    return core.count("message_outbound_total", conv_type="h2a", payload_type="text") == 1


async def is_empty(core: Core) -> bool:
    return await outbox(core) is None


async def test_what_is_heard_before_it_runs_is_confirmed_when_it_does(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        async with open_core(core.url, core.rest) as following:
            acknowledge(following, frame, 2)
            following.connection.connect()
            async with sending(following):
                await until(lambda: is_empty(following), 2)


async def test_answers_that_wait_are_bounded_and_those_behind_them_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _), trio.open_nursery() as nursery:
        for number in range(QUEUE_LENGTH + 3):
            core.delivery.heard(MessageAck(f"unknown-{number}", "m", 9))
        assert core.count("frame_dropped_total", reason="ack_overflow") == 3
        nursery.start_soon(core.delivery.run)
        await until(lambda: nothing_is_unsettled(core))
        for number in range(QUEUE_LENGTH):
            core.delivery.heard(MessageAck(f"unknown-{number}", "m", 9))
        assert core.count("frame_dropped_total", reason="ack_overflow") == 3
        nursery.cancel_scope.cancel()


async def nothing_is_unsettled(core: Core) -> bool:
    await trio.lowlevel.checkpoint()
    return core.delivery.waiting == 0


async def test_on_the_same_connection_nothing_is_sent_again_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path, pauses=Pauses(due_look=0.005)) as (core, _):
        due, scans = core.outbox.due, 0

        async def counted() -> list[str]:
            nonlocal scans
            scans += 1
            return await due()

        monkeypatch.setattr(core.outbox, "due", counted)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            await core.connection.wait_sent(1)
            enough = scans + 3

            async def scanned() -> bool:
                await trio.lowlevel.checkpoint()
                return scans >= enough

            await until(scanned)
        assert len(core.connection.sent) == 1


@pytest.mark.parametrize(
    ("code", "is_dropped"), [("500", False), ("503", False), ("unavailable", False), ("5", True), ("5000", True)]
)
async def test_a_relay_in_trouble_has_it_wait_and_another_word_with_a_five_does_not(
    tmp_path: Path, code: str, is_dropped: bool
) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            core.delivery.heard(MessageError(code, sent_message(frame).client_message_id))
            await until(lambda: nothing_is_unsettled(core))
        assert await dead_reasons(core) == ([f"refused_{code}"] if is_dropped else [])


async def test_of_a_refusal_so_much_of_its_code_is_kept_and_nothing_but_a_codes_letters(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            code = "no\n\x1b[31m" + "x" * 10_000
            core.delivery.heard(MessageError(code, sent_message(frame).client_message_id, "words " * 10_000))
            await until(lambda: is_empty(core))
        [reason] = await dead_reasons(core)
        assert reason == "refused_no___31m" + "x" * (MOST_CODE_CHARS - 8)


async def test_what_was_acknowledged_meanwhile_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[str]()

    async def acknowledged_since() -> list[str]:
        await trio.lowlevel.checkpoint()
        looks.append(CONVERSATION)
        return [CONVERSATION]

    async with scene(tmp_path, pauses=Pauses(due_look=0.01)) as (core, _):
        core.connection.connect()
        monkeypatch.setattr(core.outbox, "due", acknowledged_since)
        async with sending(core):
            await until(lambda: are_done(looks))
        assert core.connection.sent == []
        assert core.count("message_resent_total") == 0


async def are_done(looks: list[str]) -> bool:
    """Two, so that what follows from the first is over."""
    await trio.lowlevel.checkpoint()
    return len(looks) >= 2
