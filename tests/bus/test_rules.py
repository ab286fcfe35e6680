"""DESIGN §3's rules on a real Redis, each test named after its rule."""

from pathlib import Path

import msgspec
import pytest
import trio

from bus.jobs import Emitted, Failed, Finished
from bus.outbox import Committed
from bus.readers import Entry
from bus.recovery import Reclaim
from bus.store import Intake, Source
from tests.bus.builders import (
    CONVERSATION,
    PEER,
    Bus,
    arrival_of,
    job_of,
    open_bus,
    open_worker,
    reply,
    signed_id_of,
    text_of,
)
from tests.redis_server import redis_server

WAIT_SECONDS = 5.0


async def next_reply(bus: Bus) -> Entry:
    with trio.fail_after(WAIT_SECONDS):
        [entry] = await bus.replies.read(1)
    return entry


async def test_rule_1_a_known_signed_id_is_a_duplicate_whatever_its_seq(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            assert await bus.accept(1) is Intake.ACCEPTED
            assert await bus.accept(2, signed_id=signed_id_of(1)) is Intake.DUPLICATE
            assert await bus.accept(2) is Intake.ACCEPTED


async def test_rule_1_a_pushed_message_out_of_sequence_changes_nothing_and_a_polled_one_jumps(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            assert await bus.accept(1) is Intake.ACCEPTED
            before = await bus.client.command("HGETALL", bus.keys.conversation(CONVERSATION))
            assert await bus.accept(3) is Intake.GAP
            assert await bus.client.command("HGETALL", bus.keys.conversation(CONVERSATION)) == before
            assert await bus.accept(3, source=Source.POLL) is Intake.ACCEPTED
            assert (await bus.store.look(CONVERSATION, PEER, signed_id_of(9))).next_seq == 4


async def test_rule_1_an_unknown_id_below_next_is_taken_in_late_and_in_its_place(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            for seq in (1, 4, 3):
                outcome = await bus.accept(seq, source=Source.POLL)
            assert outcome is Intake.LATE
            handled = []
            for _ in range(3):
                [job] = await worker.take(8)
                handled.append(job.message.text)
                await worker.finish(job)
                worker.release(job)
            assert handled == ["message 1", "message 3", "message 4"]


async def test_rule_2_the_cursor_moves_only_from_the_value_that_was_read(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            assert await bus.store.advance_cursor(None, "m1")
            assert not await bus.store.advance_cursor(None, "m2")
            assert await bus.store.cursor() == "m1"


async def test_rule_3_an_accept_with_a_stale_session_changes_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            assert await bus.accept(1) is Intake.ACCEPTED
            stale = arrival_of(2, session_version=0)
            assert await bus.store.accept(stale, job_of(2)) is Intake.CONFLICT
            assert not (await bus.store.look(CONVERSATION, PEER, signed_id_of(2))).known
            assert await bus.accept(2) is Intake.ACCEPTED


async def test_rule_6_a_fenced_worker_changes_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "old") as old, open_worker(url, "new") as new:
            await bus.accept(1)
            [lost] = await old.take(1)
            [pending] = await bus.recovery.pending(bus.recovery.jobs, consumer="old")
            assert (await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())).outcome == "restarted"
            assert await old.emit(lost, "0", reply("late")) is Emitted.FENCED
            assert await old.finish(lost) is Finished.FENCED
            assert await old.fail(lost, "late", 0) is Failed.FENCED
            [job] = await new.take(1)
            assert (job.job_id, job.deliveries) == (lost.job_id, 2)
            assert await new.emit(job, "0", reply("in time")) is Emitted.QUEUED


async def test_rule_6_a_stopped_worker_that_wakes_does_not_take_its_job_back(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url, "new") as new:
            await bus.accept(1)
            async with open_worker(url, "old") as old:
                [lost] = await old.take(1)
                [pending] = await bus.recovery.pending(bus.recovery.jobs, consumer="old")
                await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())
                [job] = await new.take(1)
                keys = [bus.keys.jobs, bus.keys.interrupted]
                renewed = await bus.client.script("renew", keys, "workers", "old", lost.entry_id, job.entry_id)
                assert renewed == [[lost.entry_id.encode(), job.entry_id.encode()], []]
                assert await new.finish(job) is Finished.DONE


async def test_rule_7_a_renewed_lease_is_kept_and_a_silent_one_is_reclaimed(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            [pending] = await bus.recovery.pending(bus.recovery.jobs)
            await bus.client.script("renew", [bus.keys.jobs, bus.keys.interrupted], "workers", "worker-1", job.entry_id)
            assert (await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim(idle_ms=5000))).outcome == "kept"
            with trio.fail_after(WAIT_SECONDS):
                while not (silent := await bus.recovery.pending(bus.recovery.jobs, idle_ms=30)):
                    await trio.sleep(0.01)
            assert (
                await bus.recovery.reclaim(bus.recovery.jobs, silent[0], Reclaim(idle_ms=30))
            ).outcome == "restarted"


async def test_rule_8_deliveries_of_all_kinds_are_bounded(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            await bus.accept(2)
            for _ in range(20):
                [job] = await worker.take(1)
                worker.release(job)
                [pending] = await bus.recovery.pending(bus.recovery.jobs)
                reclaimed = await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())
            assert (reclaimed.outcome, reclaimed.reason) == ("dead", "deliveries")
            [letter] = await bus.dead.first()
            assert (letter.reason, letter.deliveries) == ("deliveries", 20)
            [job] = await worker.take(1)
            assert job.message.text == "message 2"


async def test_rule_10_a_second_run_adds_nothing_to_an_emitted_place(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            assert await worker.emit(job, "0", reply("once")) is Emitted.QUEUED
            assert await worker.fail(job, "broke", retry_after_ms=0) is Failed.RETRY
            assert await bus.recovery.start_due(await bus.store.now_ms()) == 1
            [again] = await worker.take(1)
            assert again.attempt == 2
            assert (await worker.start(again)).places == {"0"}
            assert await worker.emit(again, "0", reply("twice")) is Emitted.ALREADY
            assert await worker.emit(again, "1", reply("more")) is Emitted.QUEUED
            assert await bus.client.command("LLEN", bus.keys.out_box(CONVERSATION)) == 2


async def test_rule_12_the_next_reply_starts_at_confirm_whoever_hears_the_ack(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_bus(url, "supervisor-2") as other, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            for place in ("0", "1"):
                await worker.emit(job, place, reply(place))
            first = await next_reply(bus)
            assert (await bus.commit(first, "c0")).outcome is Committed.COMMITTED
            assert await bus.client.command("XLEN", bus.keys.replies) == 0
            assert await other.outbox.conversation_of("c0") == CONVERSATION
            sent = await other.outbox.confirm(CONVERSATION, "c0", "m", 2)
            assert sent is not None
            assert sent.encrypted_payload == "bytes of c0"
            assert text_of((await next_reply(bus)).fields["r"]) == "1"
            assert await other.outbox.confirm(CONVERSATION, "c0", "m", 2) is None


async def test_rule_12_an_own_message_takes_its_seq_also_when_the_ack_overtakes_a_push(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            await worker.emit(job, "0", reply("answer"))
            await bus.commit(await next_reply(bus), "c0")
            await bus.outbox.confirm(CONVERSATION, "c0", "m", 3)  # the person's seq 2 is still on its way
            assert await bus.accept(2) is Intake.ACCEPTED
            assert await bus.accept(4) is Intake.ACCEPTED


async def test_rule_13_a_reply_of_a_dead_supervisor_is_offered_again_and_the_dead_one_is_fenced(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            await worker.emit(job, "0", reply("answer"))
            taken = await next_reply(bus)
            [pending] = await bus.recovery.pending(bus.recovery.replies)
            assert (await bus.recovery.reclaim(bus.recovery.replies, pending, Reclaim())).outcome == "restarted"
            assert (await bus.commit(taken, "c0")).outcome is Committed.DONE_BEFORE
            assert (await bus.commit(await next_reply(bus), "c0")).outcome is Committed.COMMITTED


async def test_rule_13_what_can_never_be_sent_is_a_dead_letter_and_blocks_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            for place in ("0", "1", "2"):
                await worker.emit(job, place, reply(place))
            first = await next_reply(bus)
            assert await bus.outbox.drop_reply(CONVERSATION, "no_grant", entry_id=first.id)
            second = await next_reply(bus)
            await bus.commit(second, "c1")
            assert await bus.outbox.drop_reply(CONVERSATION, "refused_413", client_message_id="c1")
            assert text_of((await next_reply(bus)).fields["r"]) == "2"
            assert [letter.reason for letter in await bus.dead.first()] == ["no_grant", "refused_413"]


async def test_rule_14_a_repeated_commit_answers_with_the_stored_bytes_and_a_stale_one_changes_nothing(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            await worker.emit(job, "0", reply("answer"))
            entry = await next_reply(bus)
            assert (await bus.commit(entry, "c0", version=0)).outcome is Committed.STALE
            assert await bus.outbox.all() == []
            assert (await bus.commit(entry, "c0")).outcome is Committed.COMMITTED
            again = await bus.commit(entry, "c0")
            assert again.outcome is Committed.ALREADY
            assert again.stored is not None
            assert again.stored.encrypted_payload == "bytes of c0"


async def test_rule_14_the_rate_bucket_is_shared_and_empties(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.accept(1)
            [job] = await worker.take(1)
            outcomes = []
            for place in range(4):
                await worker.emit(job, str(place), reply("answer"))
                entry = await next_reply(bus)
                commit = await bus.commit(entry, f"c{place}", rate=2)
                outcomes.append(commit.outcome)
                if commit.outcome is Committed.WAIT:
                    assert 0 < commit.wait_ms <= 500
                    break
                await bus.outbox.confirm(CONVERSATION, f"c{place}", "m", place + 2)
            assert outcomes == [Committed.COMMITTED, Committed.COMMITTED, Committed.WAIT]


async def test_rule_18_scripts_and_group_are_made_again_after_redis_lost_them(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.client.command("FLUSHALL")
            await bus.client.command("SCRIPT", "FLUSH")
            assert await bus.accept(1) is Intake.ACCEPTED
            with trio.fail_after(WAIT_SECONDS):
                [job] = await worker.take(1)
            assert await worker.finish(job) is Finished.DONE


async def test_a_cancelled_take_swallows_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            with trio.move_on_after(0.05):
                await worker.take(1)
            await bus.accept(1)
            with trio.fail_after(WAIT_SECONDS):
                [job] = await worker.take(1)
            assert job.message.text == "message 1"


async def test_what_a_leaving_worker_has_read_and_not_taken_goes_to_another(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            async with open_worker(url, "leaving") as leaving:
                with trio.move_on_after(0.05):
                    await leaving.take(1)  # leaves a read under way
                await bus.accept(1)
                with trio.fail_after(WAIT_SECONDS):
                    while not await bus.recovery.pending(bus.recovery.jobs):
                        await trio.sleep(0.01)
            async with open_worker(url, "staying") as staying:
                with trio.fail_after(WAIT_SECONDS):
                    [job] = await staying.take(1)
            assert (job.attempt, job.deliveries) == (1, 1)


@pytest.mark.parametrize("busy", [20, 1600])
async def test_the_id_memory_is_bounded_and_remembers_at_least_the_last_1024(tmp_path: Path, busy: int) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            for seq in range(1, busy + 1):
                arrival = msgspec.structs.replace(arrival_of(seq, 0), session=None)
                assert await bus.store.accept(arrival, None) is Intake.ACCEPTED
            size = await bus.client.command("STRLEN", bus.keys.ids(CONVERSATION))
            assert isinstance(size, int)
            assert size <= (1024 if busy == 20 else 16 * 1024)
            newest_kept = [seq for seq in (busy, max(1, busy - 1023)) if await bus.accept(seq) is Intake.DUPLICATE]
            assert len(newest_kept) == 2
            look = await bus.store.look(CONVERSATION, PEER, signed_id_of(1))
            assert look.known == (busy == 20)
            assert look.dropped_ms == (0 if busy == 20 else 512)


async def test_an_unsigned_copy_in_quarantine_does_not_stand_in_the_way_of_the_genuine_message(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            forged = msgspec.structs.replace(
                arrival_of(1, 0, source=Source.POLL), session=None, signed_id=b"", message_id="m"
            )
            genuine = msgspec.structs.replace(arrival_of(1, 0, source=Source.POLL), session=None, message_id="m")
            for arrival, frame, outcome in (
                (forged, b"forged", Intake.ACCEPTED),
                (forged, b"forged again", Intake.DUPLICATE),
                (genuine, b"genuine", Intake.LATE),
                (genuine, b"genuine", Intake.DUPLICATE),
            ):
                taken = await bus.store.quarantine(arrival, reason="no_session", frame=frame)
                assert taken is outcome
            assert await bus.client.command("HGET", bus.keys.quarantined("m"), "frame") == b"genuine"
