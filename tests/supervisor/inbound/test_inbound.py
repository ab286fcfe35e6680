"""Taking messages in, with real keys on a real Redis: what is accepted, known, out of turn, or cannot be read."""

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import structlog
import trio

from bus.steps.store import Intake
from supervisor.inbound.lanes import LANE_LENGTH
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.settings.pauses import PAUSES, Pauses
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT, Person, message_frame

OTHER_CONVERSATION = "01906abc-0000-7000-8000-0000000000c2"


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, pauses: Pauses = PAUSES) -> AsyncIterator[tuple[Core, Person]]:
    """An agent with published keys, and a person who may talk to it."""
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, pauses=pauses) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            yield core, ada


def tampered(frame: MessageNew, message_id: str) -> MessageNew:
    """A copy with one bit of the signature turned, under another id of the relay's."""
    raw = bytearray(base64.b64decode(frame.encrypted_payload))
    raw[-1] ^= 1
    forged = base64.b64encode(bytes(raw)).decode()
    return msgspec.structs.replace(frame, encrypted_payload=forged, message_id=message_id)


async def test_a_message_in_sequence_becomes_a_job(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("one"))
        await core.push(ada.say("two"))
        assert (
            core.metrics.registry.get_sample_value(
                "hashee_message_inbound_total", {"conv_type": "h2a", "payload_type": "text"}
            )
            == 2
        )
        assert await core.jobs() == ["one", "two"]


async def test_an_artifact_response_is_taken_in_like_a_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        said = ada.say("yes")
        answer = ArtifactResponse(
            said.conversation_id,
            said.message_id,
            said.sender_id,
            said.encrypted_payload,
            said.conversation_seq,
            said.created_at,
        )
        assert await core.polled(answer) is Intake.ACCEPTED
        assert await core.jobs() == ["yes"]


async def test_the_same_message_again_is_a_duplicate_whatever_seq_and_id_the_relay_gives_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        said = ada.say()
        await core.push(said)
        await core.push(said)
        await core.push(msgspec.structs.replace(said, conversation_seq=2, message_id="another"))
        assert core.count("message_duplicate_total") == 2
        assert await core.jobs() == ["hello"]


async def test_a_push_out_of_sequence_is_put_aside_and_a_poll_is_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say("one"))
        two, three = ada.say("two"), ada.say("three")
        await core.push(three)
        assert core.polls.times == 1
        assert core.count("frame_dropped_total", reason="out_of_sequence") == 1
        await core.push(two)
        await core.push(three)
        assert await core.jobs() == ["one", "two", "three"]


async def test_a_polled_message_jumps_and_one_below_next_is_taken_in_late(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first, second, third = ada.say("one"), ada.say("two"), ada.say("three")
        assert await core.polled(first) is Intake.ACCEPTED
        assert await core.polled(third) is Intake.ACCEPTED
        assert await core.polled(second) is Intake.LATE
        assert core.count("message_late_total") == 1
        assert await core.jobs() == ["one", "two", "three"]


async def test_a_tampered_envelope_is_quarantined_and_does_not_block_the_genuine_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        said = ada.say("genuine")
        forged = tampered(said, "forged")
        await core.push(forged)
        assert await core.quarantined(forged) == "bad_signature"
        assert core.count("decrypt_failure_total", reason="bad_signature") == 1
        assert await core.polled(said) is Intake.LATE
        assert await core.quarantined(said) is None
        assert await core.jobs() == ["genuine"]


async def test_a_tampered_copy_under_the_same_message_id_does_not_make_the_genuine_one_known(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        said = ada.say("genuine")
        await core.push(tampered(said, said.message_id))
        await core.push(tampered(said, said.message_id))
        assert core.count("decrypt_failure_total", reason="bad_signature") == 1
        assert await core.polled(said) is Intake.LATE
        assert await core.jobs() == ["genuine"]


@pytest.mark.parametrize("payload", ["", "not base64", "AAAA", "A" * (1024 * 1024 + 4)])
async def test_what_is_no_envelope_is_quarantined_as_malformed_and_the_next_goes_on(
    tmp_path: Path, payload: str
) -> None:
    async with scene(tmp_path) as (core, ada):
        broken = message_frame(payload, seq=1)
        await core.push(broken)
        assert await core.quarantined(broken) == "malformed"
        await core.push(ada.say("next", seq=2))
        assert await core.jobs() == ["next"]


async def test_a_sender_without_a_relation_is_no_grant_and_the_relations_are_read_first(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.rest.related.clear()
        said = ada.say()
        await core.push(said)
        assert await core.quarantined(said) == "no_grant"
        assert core.rest.calls.count("relations") == 1


@pytest.mark.parametrize("status", ["suspended", "revoked"])
async def test_a_relation_that_is_not_active_is_no_grant(tmp_path: Path, status: str) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(core.rest.related[0], status)
        said = ada.say()
        await core.push(said)
        assert await core.quarantined(said) == "no_grant"


async def test_another_person_in_a_pinned_conversation_is_not_for_us(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        eve = Person(core.rest, "01906abc-0000-7000-8000-0000000000e1")
        eve.meet()
        await core.push(ada.say("mine"))
        intruding = eve.say("mine too", seq=2)
        await core.push(intruding)
        assert await core.quarantined(intruding) == "not_for_us"
        await core.push(ada.say("still mine", seq=3))
        assert await core.jobs() == ["mine", "still mine"]


async def test_another_kind_of_a_pinned_conversation_is_not_for_us(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.push(ada.say())
        group = msgspec.structs.replace(ada.say(), conversation_type="group")
        await core.push(group)
        assert await core.quarantined(group) == "not_for_us"


@pytest.mark.parametrize("field", ["conversation_id", "sender_id", "sender_device_id"])
async def test_a_frame_that_says_another_thing_than_its_envelope_is_not_for_us(tmp_path: Path, field: str) -> None:
    async with scene(tmp_path) as (core, ada):
        moved = msgspec.structs.replace(ada.say(), **{field: OTHER_CONVERSATION})
        await core.push(moved)
        assert await core.quarantined(moved) == "not_for_us"


async def test_our_own_message_by_another_connection_is_passed_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        assert await core.polled(message_frame("whatever", AGENT)) is Intake.DUPLICATE
        assert await core.client.command("ZCARD", core.keys.quarantine) == 0


async def test_a_session_that_moved_under_us_is_read_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        await core.push(ada.say("mine 0"))
        mine = [ada.say(f"mine {number}", seq=number + 1) for number in range(1, 5)]
        others = [ada.say(f"other {number}", seq=number + 1, conversation=OTHER_CONVERSATION) for number in range(5)]

        async def take_in(supervisor: Core, frames: list[MessageNew]) -> None:
            for frame in frames:
                assert await supervisor.polled(frame) is Intake.ACCEPTED

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_in, core, mine)
            nursery.start_soon(take_in, other, others)
        assert core.count("decrypt_failure_total", reason="key_used") == 0
        assert await core.client.command("ZCARD", core.keys.quarantine) == 0
        handled = await core.jobs()
        assert [text for text in handled if text.startswith("mine")] == [f"mine {number}" for number in range(5)]
        assert [text for text in handled if text.startswith("other")] == [f"other {number}" for number in range(5)]


async def test_two_supervisors_that_take_in_the_same_message_make_one_job(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        said = ada.say()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.polled, said)
            nursery.start_soon(other.polled, said)
        assert core.count("message_duplicate_total") + other.count("message_duplicate_total") == 1
        assert await core.jobs() == ["hello"]


async def test_while_redis_is_away_frames_are_dropped_and_polls_asked_for_and_then_all_goes_on(tmp_path: Path) -> None:
    rest = FakeRest()
    with running_redis(tmp_path) as server:
        async with open_core(server.url, rest) as core:
            await core.prekeys.publish()
            ada = Person(rest)
            ada.meet()
            one, two = ada.say("one"), ada.say("two")
            await core.push(one)
            server.kill()
            await core.push(two)
            assert await core.polled(two) is None
            assert core.polls.times == 2
            assert core.count("frame_dropped_total", reason="redis_away") == 2
            server.start()
            assert await core.polled(two) is Intake.ACCEPTED
            assert await core.jobs() == ["one", "two"]


async def test_a_relay_that_does_not_tell_relations_is_asked_again_while_the_message_waits(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(asking_again=0.01)) as (core, ada):
        core.rest.fail_next("relations")
        assert await core.polled(ada.say()) is Intake.ACCEPTED
        assert core.rest.calls.count("relations") == 2


async def test_a_replayed_first_message_makes_no_second_session(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first = ada.say()
        await core.push(first)
        peer = (ada.user_id, ada.device.device_id)
        before = await core.sessions.load(peer)
        await core.push(msgspec.structs.replace(first, conversation_seq=2, message_id="again"))
        after = await core.sessions.load(peer)
        assert (after.version, len(after.record.sessions)) == (before.version, 1)


async def test_a_one_time_prekey_is_erased_by_the_authentic_first_message_and_by_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first = ada.say()
        await core.push(tampered(first, "forged"))
        assert await core.client.command("HLEN", core.keys.one_time_prekeys) == 100
        assert await core.polled(first) is Intake.LATE
        assert await core.client.command("HLEN", core.keys.one_time_prekeys) == 99
        assert await core.client.command("HEXISTS", core.keys.one_time_prekeys, 1) == 0


async def test_a_handshake_with_a_prekey_that_is_gone_is_unknown_prekey_and_known_from_then_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first = ada.say()
        await core.client.command("HDEL", core.keys.one_time_prekeys, 1)
        await core.push(first)
        assert await core.quarantined(first) == "unknown_prekey"
        assert await core.polled(first) is Intake.DUPLICATE


async def test_content_of_no_use_keeps_the_moved_session_and_the_next_message_is_read(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        useless = ada.say(payload={"type": "delta", "text": "outside of a stream"})
        await core.push(useless)
        assert await core.quarantined(useless) == "bad_payload"
        assert await core.client.command("HLEN", core.keys.one_time_prekeys) == 99
        sealed = await core.client.command("HGET", core.keys.quarantined(useless.message_id), "plaintext")
        assert isinstance(sealed, bytes)
        assert b"outside" not in sealed
        await core.push(ada.say("readable"))
        assert await core.jobs() == ["readable"]


async def test_a_system_event_moves_the_session_and_makes_no_job(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        event: dict[str, object] = {"type": "system", "event": {"kind": "session.renewed"}}
        assert await core.polled(ada.say(payload=event)) is Intake.ACCEPTED
        assert await core.jobs() == []
        assert (await core.sessions.load((ada.user_id, ada.device.device_id))).version == 1


async def test_a_full_lane_passes_a_push_over_and_asks_for_a_poll(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        one = ada.say("one")
        for _ in range(LANE_LENGTH + 2):
            core.inbound.push(one)
        assert core.polls.times == 2
        assert core.count("frame_dropped_total", reason="lane_full") == 2
        await core.until_idle()
        assert core.count("message_duplicate_total") == LANE_LENGTH - 1
        assert await core.jobs() == ["one"]


async def test_a_message_that_is_always_in_conflict_is_in_quarantine_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):

        async def conflict(*_: object, **__: object) -> Intake:
            return Intake.CONFLICT

        monkeypatch.setattr(core.store, "accept", conflict)
        said = ada.say()
        assert await core.polled(said) is Intake.ACCEPTED
        assert await core.quarantined(said) == "no_session"
        assert core.count("frame_dropped_total", reason="redis_away") == 0
        monkeypatch.undo()
        await core.until_tried_again()
        assert await core.jobs() == ["hello"]


DAMAGED_RECORDS = {
    "another type": ("SET", "x"),
    "no number for the next seq": ("HSET", "next", "\xff"),
}
DAMAGED_VERSIONS = {
    "owner": ("HSET", "v", "\xff"),
    "owner, of another type": ("SET", "x"),
    "session": ("HSET", "v", "\xff", "b", "x", "e", "\xff"),
    "session, of another type": ("SET", "x"),
}


@pytest.mark.parametrize("damage", DAMAGED_RECORDS.values(), ids=DAMAGED_RECORDS)
async def test_a_damaged_record_of_one_conversation_holds_up_nobody_else(
    tmp_path: Path, damage: tuple[str, ...]
) -> None:
    """Else its message was dropped without a word, and the one cursor stood still for everybody."""
    async with scene(tmp_path) as (core, ada):
        said = ada.say("one")
        key = core.keys.conversation(said.conversation_id)
        await core.client.command(damage[0], key, *damage[1:])
        with structlog.testing.capture_logs() as logs:
            assert await core.polled(said) is Intake.ACCEPTED
        assert await core.quarantined(said) == "no_session"
        assert [line["remedy"] for line in logs if line["log_level"] == "error"] == ["docs/runbooks/redis.md"]
        assert core.count("frame_dropped_total", reason="redis_away") == 0
        assert await core.polled(said) is Intake.DUPLICATE
        other = ada.say("two", seq=1, conversation=OTHER_CONVERSATION)
        assert await core.polled(other) is Intake.ACCEPTED
        await core.client.command("DEL", key)
        await core.client.command("SADD", core.keys.wanted, said.message_id)
        await core.until_tried_again()
        assert sorted(await core.jobs()) == ["one", "two"]


@pytest.mark.parametrize("which", DAMAGED_VERSIONS)
async def test_a_damaged_record_of_one_person_holds_up_nobody_else(tmp_path: Path, which: str) -> None:
    """Else it ended the supervisor, and the next one again."""
    async with scene(tmp_path) as (core, ada):
        first = ada.say("one")
        assert await core.polled(first) is Intake.ACCEPTED
        command, *damage = DAMAGED_VERSIONS[which]
        is_owner = which.startswith("owner")
        key = core.keys.owner(ada.user_id) if is_owner else core.keys.session(ada.user_id, ada.device.device_id)
        await core.client.command("DEL", key)
        await core.client.command(command, key, *damage)
        said = ada.say("two")
        assert (await core.polled(said)) in (Intake.ACCEPTED, Intake.LATE)
        ben = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        ben.meet()
        assert await core.polled(ben.say("three", seq=1, conversation=OTHER_CONVERSATION)) is Intake.ACCEPTED
        jobs = await core.jobs()
        assert jobs[0] == "one"
        assert "three" in jobs
        assert "two" in jobs or await core.quarantined(said) is not None


async def test_a_kind_that_the_relay_says_first_and_then_no_more_is_no_conflict(tmp_path: Path) -> None:
    """`conflict` for ever: the cursor stands still for everybody."""
    async with scene(tmp_path) as (core, ada):
        first = msgspec.structs.replace(ada.say("one"), conversation_type="h2h")
        assert await core.polled(first) is Intake.ACCEPTED
        assert await core.polled(ada.say("two")) is Intake.ACCEPTED
        assert await core.jobs() == ["one", "two"]


async def test_of_two_that_cannot_be_read_under_one_message_id_none_is_a_duplicate(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        one, two = tampered(ada.say("one"), "forged"), tampered(ada.say("two"), "forged as well")
        two = msgspec.structs.replace(two, message_id=one.message_id)
        assert await core.polled(one) is Intake.ACCEPTED
        assert (await core.polled(two)) in (Intake.ACCEPTED, Intake.LATE)
        assert await core.polled(two) is Intake.DUPLICATE
        assert await core.quarantine.count() == 2


async def test_no_log_line_and_no_sealed_value_holds_what_was_said(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with scene(tmp_path) as (core, ada):
            secret = "the very particular plaintext"
            await core.push(ada.say(secret))
            await core.push(ada.say(payload={"type": "delta", "text": secret}))
            await core.push(tampered(ada.say(secret), "forged"))
            assert await core.jobs() == [secret]
    assert secret not in str(lines)
    for file in (tmp_path / "appendonlydir").iterdir():
        assert secret.encode() not in file.read_bytes()


async def test_of_two_polls_at_once_each_hears_of_what_is_pushed_until_it_ends(tmp_path: Path) -> None:
    """Two sets without anything in them are equal: the one that ends must not end the other."""
    async with scene(tmp_path) as (core, ada):
        with core.inbound.noting_pushes() as longer:
            with core.inbound.noting_pushes():
                pass
            said = ada.say()
            await core.push(said)
            assert longer == {said.message_id}
