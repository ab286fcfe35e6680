"""What is sent from outside: a digest takes the turns that replies leave, none is lost, and what cannot be sent is refused with the remedy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest
import trio

from bus.records import ulid
from bus.records.cards import decode_card
from bus.records.outside import OutsideMessage, OutsideShow
from bus.records.records import Live, LiveAbort, LiveDelta, pack_live
from supervisor.outbound.from_outside import FromOutside, NotTakenIn
from supervisor.relay.frames import (
    Frame,
    MessageAck,
    MessageRecall,
    MessageRecalled,
    ReactionSet,
    StreamAbort,
    StreamDelta,
    StreamDone,
    StreamStart,
)
from supervisor.settings.pauses import Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import KEYS, Core, open_core, reply_to_next, sending, until, worker
from tests.supervisor.doubles import FakeRest
from tests.supervisor.outbound.test_outbound import dead_reasons, scene, sent_message
from tests.supervisor.person import CONVERSATION, PERSON, Person, relation_of
from workers.talk.cards import App, Approval, Card, Info, card_payload

FOR_EVER = 3600.0
READERS = [f"01906abc-0000-7000-8000-0000000001{number:02}" for number in range(8)]


def outside_of(core: Core) -> FromOutside:
    return FromOutside(core.outside, core.store, core.vault, KEYS)


async def send(core: Core, text: str, conversation: str = CONVERSATION, *, key: str | None = None) -> str:
    return (await outside_of(core).send(OutsideMessage(conversation, text, key=key))).outcome


async def refusal(core: Core, text: str, conversation: str = CONVERSATION, *, key: str | None = None) -> NotTakenIn:
    with pytest.raises(NotTakenIn) as refused:
        await send(core, text, conversation, key=key)
    return refused.value


@asynccontextmanager
async def acknowledging(core: Core) -> AsyncIterator[None]:
    """The relay acknowledges each message, at once."""

    async def acknowledge() -> None:
        for number in count(1):
            frame = sent_message((await core.connection.wait_sent(number, FOR_EVER))[number - 1])
            core.delivery.heard(MessageAck(frame.client_message_id, f"message-{number}", number + 100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(acknowledge)
        yield
        nursery.cancel_scope.cancel()


class SlowLine:
    """Where a message leaves for the relay; none does before it is told to go on. `begun`: who has come so far, in order."""

    def __init__(self, core: Core) -> None:
        self.begun: list[str] = []
        self._send = core.connection.send
        self._is_free = trio.Event()
        core.connection.send = self.send  # type: ignore[method-assign]

    async def send(self, frame: Frame) -> None:
        self.begun.append(sent_message(frame).conversation_id)
        await self._is_free.wait()
        await self._send(frame)

    def go_on(self) -> None:
        self._is_free.set()

    async def has_come(self, conversation: str) -> bool:
        await trio.lowlevel.checkpoint()
        return conversation in self.begun


async def test_who_writes_while_a_digest_goes_out_is_answered_behind_one_message_of_it_at_most(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            await core.prekeys.publish()
            ada = Person(core.rest)
            ada.meet()
            for conversation in READERS:
                await core.push(ada.say("hello", seq=1, conversation=conversation))
                await reply_to_next(core)
            outcomes = [await send(core, "news", conversation) for conversation in READERS]
            assert outcomes == ["queued", *["waits"] * (len(READERS) - 1)]
            line, writer = SlowLine(core), READERS[-1]
            core.connection.connect()
            async with sending(core), acknowledging(core):
                await until(lambda: line.has_come(READERS[0]))
                await core.push(ada.say("a question", seq=2, conversation=writer))
                await reply_to_next(core, "an answer")
                await until(lambda: line.has_come(writer))
                assert line.begun == [READERS[0], writer]
                line.go_on()
                frames = await core.connection.wait_sent(len(READERS) + 1, FOR_EVER)
            texts = [ada.read(frame)["text"] for frame in frames]
            assert texts.count("news") == len(READERS), "and nothing of the digest is lost"
            news = [
                sent_message(frame).conversation_id for frame, text in zip(frames, texts, strict=True) if text == "news"
            ]
            assert news == READERS


async def test_who_commits_one_lets_the_next_out_and_nobody_waits_for_the_next_look(tmp_path: Path) -> None:
    """Nothing runs here that looks once a second."""
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            await core.prekeys.publish()
            ada = Person(core.rest)
            ada.meet()
            for conversation in READERS[:3]:
                await core.push(ada.say("hello", seq=1, conversation=conversation))
                await reply_to_next(core)
                await send(core, "news", conversation)
            core.connection.connect()
            core.leases.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(core.outbound.run)
                frames = await core.connection.wait_sent(3)
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await core.taking.give_back(await core.reader.close())
                await core.leases.close()
    assert [sent_message(frame).conversation_id for frame in frames] == READERS[:3]


async def test_the_next_of_the_line_goes_out_though_whoever_let_the_first_out_is_gone(tmp_path: Path) -> None:
    """It was committed, and its supervisor died before it let out the next: whoever is connected looks once a second."""
    async with scene(tmp_path) as (core, ada):
        await reply_to_next(core)
        assert [await send(core, text) for text in ("one", "two")] == ["queued", "waits"]
        await core.client.command("DEL", core.keys.outside_turn)
        core.connection.connect()
        async with sending(core), acknowledging(core):
            frames = await core.connection.wait_sent(2)
        assert [ada.read(frame)["text"] for frame in frames] == ["one", "two"]


async def test_what_cannot_be_sent_is_refused_by_name_and_with_the_remedy(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await reply_to_next(core)
        secret = "a secret text"
        cases = {
            "unknown_conversation": (await refusal(core, secret, "nowhere"), "hashee-agent conversations"),
            "empty_text": (await refusal(core, " \n"), "stdin"),
            "text_too_long": (await refusal(core, secret * 10_000), "100000 characters"),
            "bad_text": (await refusal(core, f"{secret}\udc80"), "UTF-8"),
            "bad_key": (await refusal(core, secret, key="a key"), "deploy-42"),
        }
        assert await send(core, secret, key="k") == "queued"
        assert await send(core, secret, key="k") == "already"
        cases["key_used"] = await refusal(core, "another text", key="k"), "another key"
        core.store.budgets = msgspec.structs.replace(core.store.budgets, out_bytes=800)
        await core.store.publish_bounds()
        cases["full"] = await refusal(core, secret * 100), "try again"
        core.store.budgets = msgspec.structs.replace(core.store.budgets, out_bytes=10)
        await core.store.publish_bounds()
        cases["many_keys"] = await refusal(core, secret, key="K"), "HASHEE_REDIS_MEMORY"
        await core.owners.note(relation_of(ada), "revoked")
        cases["no_grant"] = await refusal(core, secret), f"hashee-agent grants list {PERSON}"
        assert {reason: problem.reason for reason, (problem, _) in cases.items()} == {
            reason: reason for reason in cases
        }
        for problem, remedy in cases.values():
            assert remedy in str(problem)
            assert secret not in str(problem)
        assert [reason for reason, (problem, _) in cases.items() if problem.is_temporary] == ["full"]


async def test_a_reminder_from_outside_is_a_job_of_its_conversation_once_for_its_key(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        deploy = OutsideMessage(CONVERSATION, reminder="deploy", data={"number": 42, "by": "Ada"}, key="deploy-42")
        receipts = [
            await outside_of(core).send(one) for one in (deploy, msgspec.structs.replace(deploy, data=deploy.data))
        ]
        assert [one.outcome for one in receipts] == ["queued", "already"]
        for other in (
            msgspec.structs.replace(deploy, data=43),
            msgspec.structs.replace(deploy, reminder="other"),
            OutsideMessage(CONVERSATION, "deploy", key="deploy-42"),
        ):
            with pytest.raises(NotTakenIn, match="another key"):
                await outside_of(core).send(other)
        for bad, remedy in (
            (OutsideMessage(CONVERSATION, reminder="no name"), "on_reminder"),
            (OutsideMessage(CONVERSATION, reminder="x" * 49), "1 to 48"),
            (OutsideMessage(CONVERSATION, "text", reminder="deploy"), "no text"),
            (OutsideMessage(CONVERSATION, reminder="deploy", data="x" * 40_000), "32 KiB"),
        ):
            with pytest.raises(NotTakenIn, match=remedy):
                await outside_of(core).send(bad)
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
            jobs.release(job)
    assert (job.kind, job.job_id, job.message.sender_id) == ("reminder", receipts[0].id, PERSON)
    data = job.message.payload["data"]
    assert isinstance(data, bytes)
    assert msgspec.msgpack.decode(data) == deploy.data
    assert job.message.payload["name"] == "deploy"


def card_message(card: Card, *, key: str | None = None) -> OutsideMessage:
    return OutsideMessage(CONVERSATION, key=key, card=card_payload(card, ulid.new()))


async def test_a_card_from_outside_is_shown_and_known_so_that_a_handler_may_update_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await reply_to_next(core)
        vote = card_message(App("vote_card", {"options": ["soup"]}), key="vote")
        assert (await outside_of(core).send(vote)).outcome == "queued"
        question = card_message(Approval("Deploy?"), key="ask")
        assert (await outside_of(core).send(question)).outcome == "waits"
        again = [
            card_message(App("vote_card", {"options": ["soup"]}), key="vote"),
            card_message(Approval("Deploy?"), key="ask"),
        ]
        assert [(await outside_of(core).send(one)).outcome for one in again] == ["already", "already"]
        with pytest.raises(NotTakenIn, match="another key"):
            await outside_of(core).send(card_message(Approval("Delete?"), key="ask"))
        core.connection.connect()
        async with sending(core), acknowledging(core):
            frames = await core.connection.wait_sent(2)
        shown = [ada.read(frame) for frame in frames]
        assert shown == [vote.card, question.card]
        kept = await core.client.command("HVALS", core.keys.cards(CONVERSATION))
        assert isinstance(kept, list)
        found = [decode_card(one) for one in kept if isinstance(one, bytes)]
        assert sorted((one.revision, one.kind) for one in found) == [(0, "app vote_card"), (0, "approval")]


async def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        good = card_payload(Info("body"), ulid.new())
        no_id = {**good, "artifact": {"artifact_id": "1", "subtype": "info", "payload": {}}}
        for bad in (
            {"type": "text"},
            {"type": "artifact"},
            no_id,
            {"type": "artifact", "artifact": {"artifact_id": ulid.new()}},
        ):
            with pytest.raises(NotTakenIn) as refused:
                await outside_of(core).send(OutsideMessage(CONVERSATION, card=dict(bad)))
            assert refused.value.reason == "bad_card"
        with pytest.raises(NotTakenIn, match="without a text"):
            await outside_of(core).send(OutsideMessage(CONVERSATION, "text", card=good))


async def reacted(core: Core, key: str | None = None) -> str:
    react = OutsideMessage(CONVERSATION, react_to="theirs", emoji="👍", key=key)
    return (await outside_of(core).send(react)).outcome


async def test_a_reaction_and_a_recall_from_outside_go_their_way_once_for_their_key(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        sent = await outside_of(core).send(OutsideMessage(CONVERSATION, "wrong"))
        recall = OutsideMessage(CONVERSATION, recall=sent.id, key="r")
        assert [(await outside_of(core).send(recall)).outcome for _ in range(2)] == ["queued", "already"]
        assert [await reacted(core, "k"), await reacted(core, "k")] == ["queued", "already"]
        with pytest.raises(NotTakenIn, match="another key"):
            await outside_of(core).send(OutsideMessage(CONVERSATION, "text", key="k"))
        core.connection.connect()
        async with sending(core):
            said = sent_message((await core.connection.wait_sent(1, FOR_EVER))[0])
            core.heard(MessageAck(said.client_message_id, "ours", 3))
            [_, frame] = await core.connection.wait_sent(2, FOR_EVER)
            assert frame == MessageRecall("ours", CONVERSATION)
            core.heard(MessageRecalled("ours", CONVERSATION, "x"))
            [*_, frame] = await core.connection.wait_sent(3, FOR_EVER)
            assert frame == ReactionSet("theirs", CONVERSATION, "👍")
        assert await dead_reasons(core) == []


async def test_what_waits_for_its_turn_is_recalled_before_anybody_sees_it_and_a_card_by_its_id(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        assert await send(core, "one") == "queued"
        waits = card_message(Info("two"))
        assert (await outside_of(core).send(waits)).outcome == "waits"
        artifact = (waits.card or {})["artifact"]
        assert isinstance(artifact, dict)
        taken_back = await outside_of(core).send(OutsideMessage(CONVERSATION, recall=artifact["artifact_id"]))
        assert taken_back.outcome == "taken_back"
        assert await core.outside.count() == 0
        for nothing in ("nothing", ulid.new()):
            with pytest.raises(NotTakenIn) as refused:
                await outside_of(core).send(OutsideMessage(CONVERSATION, recall=nothing))
            assert refused.value.reason == "unknown_message"


@pytest.mark.parametrize(("message_id", "emoji"), [("no id", "👍"), ("", "👍"), ("id", ""), ("id", "x" * 17)])
async def test_what_is_no_reaction_is_refused(tmp_path: Path, message_id: str, emoji: str) -> None:
    async with scene(tmp_path) as (core, _):
        with pytest.raises(NotTakenIn) as refused:
            await outside_of(core).send(OutsideMessage(CONVERSATION, react_to=message_id, emoji=emoji))
        assert refused.value.reason == "bad_reaction"


async def test_nobody_is_told_that_something_is_shown_where_no_agent_runs(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        for shown, reason in (
            (OutsideShow(CONVERSATION, "typing"), "no_agent"),
            (OutsideShow("nowhere", "typing"), "unknown_conversation"),
            (OutsideShow(CONVERSATION, "begin", "no ULID"), "bad_stream"),
            (OutsideShow(CONVERSATION, "begin", ulid.new(), key="a key"), "bad_key"),
        ):
            with pytest.raises(NotTakenIn) as refused:
                await outside_of(core).show(shown)
            assert refused.value.reason == reason


async def test_a_text_grows_and_its_end_is_the_end_of_its_stream(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        stream_id, outside = ulid.new(), outside_of(core)
        core.connection.connect()
        async with sending(core), passing_on(core):
            assert (await outside.show(OutsideShow(CONVERSATION, "begin", stream_id, key="k"))).outcome == "queued"
            await core.connection.wait_sent(1, FOR_EVER)
            core.streams.heard(live_of(core, LiveDelta(CONVERSATION, stream_id, 0, "half")))
            await core.connection.wait_sent(2, FOR_EVER)
            whole = OutsideMessage(CONVERSATION, "half and half", key="k", stream_id=stream_id)
            assert (await outside.send(whole)).outcome == "queued"
            frames = await core.connection.wait_sent(3, FOR_EVER)
        assert [type(frame) for frame in frames] == [StreamStart, StreamDelta, StreamDone]
        assert (await outside.show(OutsideShow(CONVERSATION, "begin", ulid.new(), key="k"))).outcome == "already"
        assert (await outside.send(msgspec.structs.replace(whole, stream_id=ulid.new()))).outcome == "already"


async def test_an_abort_from_outside_ends_its_own_stream_and_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        stream_id = ulid.new()
        core.connection.connect()
        async with sending(core), passing_on(core):
            await outside_of(core).show(OutsideShow(CONVERSATION, "begin", stream_id))
            await core.connection.wait_sent(1, FOR_EVER)
            core.streams.heard(live_of(core, LiveAbort(CONVERSATION, ulid.new())))
            core.streams.heard(live_of(core, LiveDelta(CONVERSATION, stream_id, 0, "half")))
            core.streams.heard(live_of(core, LiveAbort(CONVERSATION, stream_id)))
            frames = await core.connection.wait_sent(3, FOR_EVER)
        assert [type(frame) for frame in frames] == [StreamStart, StreamDelta, StreamAbort]


async def test_a_stream_whose_program_is_gone_is_ended(tmp_path: Path) -> None:
    async with scene(tmp_path, pauses=Pauses(due_look=0.02, stream_orphaned=0.1)) as (core, _):
        await reply_to_next(core)
        core.connection.connect()
        async with sending(core):
            await outside_of(core).show(OutsideShow(CONVERSATION, "begin", ulid.new()))
            frames = await core.connection.wait_sent(2)
        assert [type(frame) for frame in frames] == [StreamStart, StreamAbort]


def live_of(core: Core, live: Live) -> bytes:
    return pack_live(live, key=KEYS.bus, agent_id=core.keys.agent_id)


@asynccontextmanager
async def passing_on(core: Core) -> AsyncIterator[None]:
    """What is said over the live channel is passed on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.streams.run)
        yield
        nursery.cancel_scope.cancel()


async def test_a_grant_that_is_taken_back_while_it_waits_makes_it_a_dead_letter_and_frees_the_line(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (core, ada):
        await reply_to_next(core)
        await send(core, "one")
        await send(core, "two")
        await core.owners.note(relation_of(ada), "revoked")
        core.connection.connect()
        async with sending(core):
            await until(lambda: both_dead(core))
        assert core.connection.sent == []


async def both_dead(core: Core) -> bool:
    return await dead_reasons(core) == ["no_grant", "no_grant"]


async def test_nothing_of_it_stands_in_redis_unsealed_and_no_key_can_be_guessed(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        await reply_to_next(core)
        await send(core, "a secret text", key="a-secret-key")
        await send(core, "a secret text, too")
        everything = b""
        for key in await core.client.command("KEYS", "*"):  # type: ignore[union-attr]
            everything += await core.client.command("DUMP", key) or b""  # type: ignore[operator,arg-type]
        assert everything
        assert b"secret" not in everything
