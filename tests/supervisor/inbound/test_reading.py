"""What is decided about one message: what is old, what is renegotiated, what is answered by ourselves, and what waits."""

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from bus.records.records import Payload, decode_reply_record
from bus.steps.store import Intake, Source
from bus.steps.thread_steps import Effect
from crypto import msgpack, strict_base64
from crypto.content import SealedContent, seal_content
from crypto.envelope import Body, Expected, parse_envelope, ratchet_wrap
from crypto.errors import Reason, Unreadable
from supervisor.inbound.incoming import Incoming
from supervisor.inbound.reading import FrameReader
from supervisor.inbound.readings import Reading, Unread
from supervisor.inbound.unpolled import UnpolledPushes
from supervisor.relay.frames import MessageNew
from tests.supervisor.builders import Core, worker
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.person import AGENT, CONVERSATION, PERSON, Person


def resigned(ada: Person, frame: MessageNew, **changes: object) -> MessageNew:
    """With parts of its envelope changed, signed by its own sender."""
    envelope = parse_envelope(frame.encrypted_payload, Expected(frame.conversation_id, frame.sender_id, None))
    fields = {name: getattr(envelope, name) for name in Body.__struct_fields__} | changes
    body = msgpack.encode(Body(**fields))
    signature = ada.identity.sign(b"hashee-sign-v1\x00" + body)
    return msgspec.structs.replace(frame, encrypted_payload=strict_base64.encode(msgpack.encode([body, signature])))


async def said(core: Core) -> list[str]:
    """The places of what we say by ourselves."""
    rows = cast("list[tuple[bytes, list[bytes]]]", await core.client.command("XRANGE", core.keys.replies, "-", "+"))
    return [decode_reply_record(fields[1]).place for _, fields in rows]


def say_under_another_key(ada: Person, monkeypatch: pytest.MonkeyPatch) -> MessageNew:
    """What a bad peer can do: the wrap is good, and the key in it is not that of the content."""

    def sealed(*arguments: object) -> SealedContent:
        return msgspec.structs.replace(seal_content(*arguments), content_key=bytes(32))  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("crypto.envelope.seal_content", sealed)
        return ada.say("forged")


@pytest.mark.parametrize("is_behind", [False, True])
async def test_forged_content_under_a_good_wrap_is_neither_old_nor_a_reason_for_another_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_behind: bool
) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.polled(ada.say("first"))
        forged = say_under_another_key(ada, monkeypatch)
        if is_behind:
            await core.polled(ada.say("third"))
        assert (await core.polled(forged)) in (Intake.ACCEPTED, Intake.LATE)
        assert await core.quarantined(forged) == "bad_ciphertext"
        assert (core.count("message_old_total"), core.count("session_renewed_total")) == (0, 0)
        assert await said(core) == []


async def test_below_what_its_conversation_has_come_to_only_what_a_lost_session_would_explain_is_old(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        frames = [ada.say(f"{number}") for number in range(3)]
        await core.polled(frames[2])
        envelope = parse_envelope(frames[0].encrypted_payload, Expected(CONVERSATION, PERSON, None))
        twice = resigned(ada, frames[0], wraps=envelope.wraps * 2)
        assert await core.polled(twice) is Intake.LATE
        assert await core.quarantined(twice) == "malformed"
        left_out = resigned(ada, frames[1], wraps=())
        assert await core.polled(left_out) is Intake.OLD
        assert await core.quarantined(left_out) is None


async def test_a_ping_is_answered_and_another_system_event_is_not(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        for kind in ("session.renewed", "of a later version"):
            await core.polled(ada.say(payload={"type": "system", "event": {"kind": kind}}))
        assert await said(core) == []
        await core.polled(ada.say(payload={"type": "system", "event": {"kind": "session.ping"}}))
        assert await said(core) == ["!pong"]
        assert await core.jobs() == []


async def test_a_session_that_its_device_cannot_read_is_sent_on_no_more(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        first = ada.say("first")
        await core.polled(first)
        envelope = parse_envelope(first.encrypted_payload, Expected(CONVERSATION, PERSON, None))
        session = ratchet_wrap(envelope, AGENT).session
        event = {"kind": "session.renewed", "lost": strict_base64.encode(session)}
        await core.polled(ada.say(payload={"type": "system", "event": event}))
        record = (await core.sessions.load((PERSON, "phone"))).record
        found = record.find(session)
        assert found is not None
        assert found.is_lost


async def test_while_redis_is_nearly_full_nothing_is_taken_in(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.inbound.pause(True)
        frame = ada.say("later")
        assert await core.polled(frame) is Intake.NOT_NOW
        await core.push(frame)
        assert core.count("frame_dropped_total", reason="hold") == 2
        core.inbound.pause(False)
        assert await core.polled(frame) is Intake.ACCEPTED


async def test_pushes_wait_for_the_cursor_while_it_moves_and_a_poll_is_asked_for_in_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.inbound.unpolled = UnpolledPushes(core.polls, poll_after=2, most_unpolled=4)
        frames = [ada.say(f"{number}") for number in range(6)]
        for frame in frames[:4]:
            await core.push(frame)
        assert core.polls.times == 2
        await core.push(frames[4])
        assert core.polls.times == 3, "it is held"
        core.inbound.unpolled.polled(has_caught_up=False)
        await core.push(frames[4])
        assert await core.jobs() == ["0", "1", "2", "3", "4"], "a cursor that cannot move holds nothing up"
        core.inbound.unpolled.polled(has_caught_up=True)
        await core.push(frames[5])
        assert await core.jobs() == ["5"]


async def test_what_nobody_can_read_is_kept_as_evidence_and_what_may_be_mended_is_kept_whole(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        hopeless = msgspec.structs.replace(ada.say(), encrypted_payload="no envelope")
        mendable = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1").say(conversation="another")
        for frame in (hopeless, mendable):
            await core.polled(frame)
        kept = [await core.quarantine.find(frame.message_id) for frame in (hopeless, mendable)]
        assert [one is not None and one.frame != b"" for one in kept] == [False, True]
        assert all(one is not None and one.evidence for one in kept)


async def test_a_conversation_that_is_full_is_told_so_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.client.command("HSET", core.keys.policy, "most", 1)
        outcomes = [await core.polled(ada.say(f"{number}")) for number in range(4)]
        assert outcomes == [Intake.ACCEPTED, Intake.ACCEPTED, Intake.REFUSED, Intake.NOTED]
        assert core.count("message_refused_total") == 1
        assert await said(core) == ["!refused"]


async def test_rule_4_what_may_be_an_answer_is_not_refused_where_its_conversation_is_full(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), worker(core) as taking:
        await core.client.command("HSET", core.keys.policy, "most", 1)
        await core.push(ada.say("/ask"))
        [asks] = await taking.take(1)

        def open_question(name: str, kind: str, who: str) -> Effect:
            body = msgspec.msgpack.encode({"kind": kind, "who": [who]})
            return ("wait", name, taking.seal_wait(asks, name, body), "")

        questions = [("1", "text", "ben"), ("2", "text", PERSON), ("3", "approval", PERSON)]
        await taking.settle(asks, "waiting", [open_question(*one) for one in questions])
        taking.release(asks)
        answer: Payload = {"type": "artifact", "artifact": {"subtype": "response", "ref_artifact": "3", "payload": {}}}
        late: Payload = {"type": "artifact", "artifact": {"subtype": "response", "ref_artifact": "4", "payload": {}}}
        await core.polled(ada.say("running"))
        await core.polled(ada.say("waits"))
        outcomes = [
            await core.polled(ada.say("Ann")),
            await core.polled(ada.say(payload=answer)),
            await core.polled(ada.say(payload=late)),
        ]
        assert outcomes == [Intake.ACCEPTED, Intake.ACCEPTED, Intake.REFUSED]
        assert core.count("message_refused_total") == 1


@pytest.mark.parametrize(("text", "outcome"), [("/cancel", Intake.ACCEPTED), ("/help", Intake.REFUSED)])
async def test_rule_4_of_commands_the_one_that_ends_a_question_is_not_refused(
    tmp_path: Path, text: str, outcome: Intake
) -> None:
    async with scene(tmp_path) as (core, ada), worker(core) as taking:
        await core.client.command("HSET", core.keys.policy, "most", 1)
        await core.push(ada.say("/ask"))
        [asks] = await taking.take(1)
        body = msgspec.msgpack.encode({"kind": "approval", "who": [PERSON]})
        await taking.settle(asks, "waiting", [("wait", "1", taking.seal_wait(asks, "1", body), "")])
        taking.release(asks)
        for said_first in ("running", "waits"):
            await core.polled(ada.say(said_first))
        assert await core.polled(ada.say(text)) is outcome


async def test_what_an_older_version_remembered_when_it_could_not_read_it_is_no_duplicate(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        readable = ada.say()
        first = parse_envelope(readable.encrypted_payload, Expected(CONVERSATION, PERSON, None)).replay_id
        arrival = Incoming(readable, Source.POLL, 1).arrival()
        arrival = msgspec.structs.replace(arrival, signed_id=first, peer=(PERSON, "phone"), person=PERSON)
        await core.store.quarantine(arrival, reason="no_session", frame=b"{}")
        await core.client.command("HSET", core.keys.quarantined(readable.message_id), "signed", 1)
        await core.client.command("APPEND", core.keys.ids(CONVERSATION), first)
        kept = await core.quarantine.find(readable.message_id)
        assert kept is not None
        assert (await core.inbound.retry(kept, readable)).outcome is Intake.ACCEPTED
        assert await core.jobs() == ["hello"]


async def test_what_was_judged_out_of_quarantine_by_a_session_that_has_moved_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        frame = ada.say()
        replay_id = parse_envelope(frame.encrypted_payload, Expected(CONVERSATION, PERSON, None)).replay_id
        arrival = Incoming(frame, Source.POLL, 1).arrival()
        arrival = msgspec.structs.replace(arrival, signed_id=replay_id, peer=(PERSON, "phone"), person=PERSON)
        await core.store.quarantine(arrival, reason="no_session", frame=b"{}")
        kept = await core.quarantine.find(frame.message_id)
        assert kept is not None
        read, error = FrameReader.read, Unreadable(Reason.NO_SESSION, "the session of another supervisor")
        judged = [Unread(msgspec.structs.replace(arrival, session_version=7), error)]

        async def by_another_session(self: FrameReader, *arguments: Any) -> Reading:
            return judged.pop() if judged else await read(self, *arguments)

        monkeypatch.setattr(FrameReader, "read", by_another_session)
        assert (await core.inbound.retry(kept, frame)).outcome is Intake.ACCEPTED
