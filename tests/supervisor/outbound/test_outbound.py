"""Replies on their way out: committed before they are sent, the same bytes at every resend, one of a conversation at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from bus.records.records import decode_outbox_record
from bus.steps.outbox import RESEND_SECONDS, Commit
from bus.steps.recovery import Reclaim
from host.instance import Instance
from supervisor.relay.frames import Frame, MessageAck, MessageError, MessageSend
from supervisor.settings.pauses import PAUSES, Pauses
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import WAIT_SECONDS, Core, open_core, reply_to_next, sending, text_reply, until, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import CONVERSATION, Person
from tests.waiting import waiting_for

OTHER_CONVERSATION = "01906abc-0000-7000-8000-0000000000c2"


@asynccontextmanager
async def scene(
    tmp_path: Path, *, resend_seconds: float = RESEND_SECONDS, pauses: Pauses = PAUSES
) -> AsyncIterator[tuple[Core, Person]]:
    """A message of Ada's waits for its answer."""
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, resend_seconds=resend_seconds, pauses=pauses) as core:
            ada = await greeted(core)
            yield core, ada


@asynccontextmanager
async def successor_scene(tmp_path: Path, pauses: Pauses = PAUSES) -> AsyncIterator[tuple[Core, Person]]:
    """As `scene`; who is to answer is a later process, which has read nothing yet."""
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest, pauses=pauses) as successor:
        yield successor, ada


async def greeted(core: Core) -> Person:
    await core.prekeys.publish()
    ada = Person(core.rest)
    ada.meet()
    await core.push(ada.say())
    return ada


async def outbox(core: Core, conversation: str = CONVERSATION) -> MessageSend | None:
    """The bytes that stand in the outbox."""
    packed = await core.client.command("HGET", core.keys.sent(conversation), "r")
    if packed is None:
        return None
    assert isinstance(packed, bytes)
    record = decode_outbox_record(packed)
    return MessageSend(record.client_message_id, conversation, record.content_type, record.encrypted_payload)


def sent_message(frame: Frame) -> MessageSend:
    assert isinstance(frame, MessageSend)
    return frame


def acknowledge(core: Core, frame: Frame, seq: int) -> None:
    """As the relay does when it has stored a message."""
    core.delivery.heard(MessageAck(sent_message(frame).client_message_id, f"relay's-{seq}", seq))


async def dead_reasons(core: Core) -> list[str]:
    return [letter.reason for letter in await core.dead.first()]


async def test_a_reply_is_in_the_outbox_before_it_is_sent_and_its_person_can_read_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        stored: list[MessageSend | None] = []
        send = core.connection.send

        async def look_first(frame: Frame) -> None:
            stored.append(await outbox(core))
            await send(frame)

        core.connection.send = look_first  # type: ignore[method-assign]  # looks before it sends
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert stored == [frame]
        assert ada.read(frame) == {"type": "text", "text": "an answer"}


async def test_replies_of_a_conversation_leave_in_order_each_after_the_acknowledgement_of_the_one_before(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "one", "two", "three")
        async with sending(core):
            for number in range(3):
                frames = await core.connection.wait_sent(number + 1)
                assert len(core.connection.sent) == number + 1
                acknowledge(core, frames[-1], number + 2)
            assert [ada.read(frame)["text"] for frame in frames] == ["one", "two", "three"]

            async def confirmed() -> bool:
                return await core.outbox.all() == []

            await until(confirmed)
        count = core.metrics.registry.get_sample_value(
            "hashee_message_outbound_total", {"conv_type": "h2a", "payload_type": "text"}
        )
        assert count == 3


async def test_conversations_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("elsewhere", seq=1, conversation=OTHER_CONVERSATION))
        core.connection.connect()
        await reply_to_next(core, "here, never acknowledged", "here again")
        await reply_to_next(core, "there")
        async with sending(core):
            frames = await core.connection.wait_sent(2)
        assert {sent_message(frame).conversation_id for frame in frames} == {CONVERSATION, OTHER_CONVERSATION}


async def test_a_session_that_moved_between_encryption_and_commit_makes_it_encrypt_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        core.connection.connect()
        commit, frames = core.outbox.commit, [ada.say("in between")]
        outcomes = []

        async def moved(**arguments: object) -> object:
            if frames:
                await other.polled(frames.pop())
            answer = await commit(**arguments)  # type: ignore[arg-type]
            outcomes.append(answer.outcome.value)
            return answer

        core.outbox.commit = moved  # type: ignore[method-assign,assignment]
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert outcomes == [b"stale", b"committed"]
        assert ada.read(frame)["text"] == "an answer"
        assert ada.say("readable") is not None


@pytest.mark.parametrize("status", ["revoked", "suspended"])
async def test_a_reply_to_somebody_without_a_grant_is_a_dead_letter(tmp_path: Path, status: str) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        await core.owners.note(core.rest.related[0], status)
        await reply_to_next(core, "too late")
        async with sending(core):

            async def dropped() -> bool:
                return await dead_reasons(core) == ["no_grant"]

            await until(dropped)
        assert core.connection.sent == []


async def test_what_is_too_large_or_has_no_json_form_is_a_dead_letter_and_the_next_reply_goes_on(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "A" * 1_100_000, "the next")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == "the next"
        assert await dead_reasons(core) == ["too_large"]


async def test_nothing_is_taken_while_disconnected_and_what_was_read_is_given_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), sending(core):
        core.connection.connect()
        await trio.testing.wait_all_tasks_blocked(0.02)
        core.connection.disconnect()
        await reply_to_next(core, "an answer")

        async def given_back() -> bool:
            return await core.client.command("XLEN", core.keys.replies) == 1 and not await core.recovery.holders(
                core.recovery.replies
            )

        await until(given_back)
        assert await outbox(core) is None
        core.connection.connect()
        [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == "an answer"


async def test_a_redis_that_comes_back_with_its_data_loses_no_reply_and_repeats_none(tmp_path: Path) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with open_core(server.url, rest) as core:
            ada = await greeted(core)
            core.connection.connect()
            await reply_to_next(core, "one", "two")
            async with sending(core):
                [first] = await core.connection.wait_sent(1)
                server.kill()
                acknowledge(core, first, 2)
                await trio.testing.wait_all_tasks_blocked(0.05)
                server.start()  # the acknowledgement was kept meanwhile: nothing waits for a resend
                with waiting_for("the second reply to be sent after the restart", WAIT_SECONDS):
                    while sent_message(core.connection.sent[-1]) == first:
                        await core.connection.wait_sent(len(core.connection.sent) + 1)
                texts = [ada.read(frame)["text"] for frame in (first, core.connection.sent[-1])]
                assert texts == ["one", "two"]
                assert all(frame == first for frame in core.connection.sent[:-1]), (
                    "what is sent again has the same bytes"
                )


async def test_two_supervisors_share_the_replies_and_send_each_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest, Instance("00000000", 1, 1)) as other:
        conversations = [f"01906abc-0000-7000-8000-0000000001{number:02d}" for number in range(10)]
        for conversation in conversations:
            await core.polled(ada.say("hello", seq=1, conversation=conversation))
        for _ in range(11):
            await reply_to_next(core, "an answer")
        async with sending(core), sending(other):
            core.connection.connect()
            other.connection.connect()

            async def all_sent() -> bool:
                return len(core.connection.sent) + len(other.connection.sent) >= 11

            await until(all_sent)
            await trio.testing.wait_all_tasks_blocked(0.05)
        frames = core.connection.sent + other.connection.sent
        assert len({sent_message(frame).client_message_id for frame in frames}) == len(frames) == 11
        for frame in frames:
            assert ada.read(frame)["text"] == "an answer"


async def test_no_log_line_holds_what_was_answered(tmp_path: Path) -> None:
    secret = "the very particular answer"
    with structlog.testing.capture_logs() as lines:
        async with scene(tmp_path) as (core, _):
            core.connection.connect()
            await reply_to_next(core, secret, secret + "A" * 1_100_000)
            async with sending(core):
                [first] = await core.connection.wait_sent(1)
                core.delivery.heard(MessageError("413", sent_message(first).client_message_id))

                async def both_dead() -> bool:
                    return len(await dead_reasons(core)) == 2

                await until(both_dead)
    assert secret not in str(lines)
    for file in (tmp_path / "appendonlydir").iterdir():
        assert secret.encode() not in file.read_bytes()


async def test_a_reply_that_was_sent_has_the_same_id_when_its_job_runs_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        core.connection.connect()
        async with worker(core, "first") as jobs:
            [job] = await jobs.take(1)
            await jobs.emit(job, "0", text_reply("once"))
            jobs.release(job)
            async with sending(core):
                [frame] = await core.connection.wait_sent(1)
                acknowledge(core, frame, 2)
                [pending] = await core.recovery.pending(core.recovery.jobs, consumer="first")
                assert (await core.recovery.reclaim(core.recovery.jobs, pending, Reclaim())).outcome == "restarted"
                await reply_to_next(core, "twice", "and more")
                _, second = await core.connection.wait_sent(2)
        assert sent_message(second).client_message_id != sent_message(frame).client_message_id
        assert len(core.connection.sent) == 2


async def test_who_leaves_finishes_what_is_in_hand_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        async with sending(core):
            core.connection.connect()
            await reply_to_next(core, "first")
            [sent] = await core.connection.wait_sent(1)
            await core.taking.stop()
            assert core.taking.under_way == 0
            await core.push(ada.say(seq=2))
            await reply_to_next(core, "second")
            assert isinstance(sent, MessageSend)
            core.delivery.heard(MessageAck(sent.client_message_id, "m", 3))
            await until(lambda: _has_entries(core, 1))
            assert core.connection.sent == [sent]
        entries = await core.client.command("XPENDING", core.keys.replies, "supervisors")
        assert isinstance(entries, list)
        assert entries[0] == 0, "another may take it at once"


async def test_a_lease_that_ends_with_the_commit_does_not_cut_the_send_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, _):
        on_the_line, may_go_on, sent = trio.Event(), trio.Event(), list[Frame]()

        async def slow_send(frame: Frame, *_: object) -> None:
            on_the_line.set()
            await may_go_on.wait()
            sent.append(frame)

        monkeypatch.setattr(core.connection, "send", slow_send)
        async with sending(core):
            core.connection.connect()
            await reply_to_next(core, "an answer")
            with waiting_for("the reply to be on the line", WAIT_SECONDS):
                await on_the_line.wait()
            [entry_id] = core.taking.entries
            core.taking.lease_lost(entry_id)  # as a renewal says that asks while the commit's answer is on its way
            may_go_on.set()
            with waiting_for("the reply to be no longer under way", WAIT_SECONDS):
                while core.taking.under_way:
                    await trio.sleep(0.005)
        assert len(sent) == 1


async def test_a_lease_that_is_gone_with_the_commit_does_not_hold_up_the_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, _):
        commit = core.outbox.commit

        async def commit_and_renew(**named: Any) -> Commit:
            committed = await commit(**named)
            core.taking.lease_lost(named["entry_id"])  # as a renewal says that asks while the answer is on its way
            await trio.lowlevel.checkpoint()
            return committed

        monkeypatch.setattr(core.outbox, "commit", commit_and_renew)
        async with sending(core):
            core.connection.connect()
            await reply_to_next(core, "an answer")
            await core.connection.wait_sent(1)


async def _has_entries(core: Core, count: int) -> bool:
    return await core.client.command("XLEN", core.keys.replies) == count
