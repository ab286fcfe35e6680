"""What programs may ask of a supervisor by MCP: what the agent's setting names, and nothing else; a question is a job, once for its key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from bus.control.messages import Request
from bus.records.kept import STORE, pack_kept
from bus.records.outside import AnswerWanted, OutsideAnswer, OutsideMessage, OutsideQuestion, answer_key
from bus.records.records import GROUP
from bus.settings.reader import Malformed
from bus.views.conversations import Conversations
from supervisor.outbound.from_outside import MOST_QUESTION_CHARACTERS
from supervisor.pool.pool import Pool
from supervisor.pool.reloading import Reloading
from supervisor.run.operator import Operator
from supervisor.run.programs import Programs
from supervisor.settings.reachable import Reachable
from tests.supervisor.builders import KEYS, Core, worker
from tests.supervisor.outbound.test_outbound import scene
from tests.supervisor.person import CONVERSATION, PERSON

ELSEWHERE = "01906abc-0000-7000-8000-0000000000ee"
QUESTION = OutsideQuestion(CONVERSATION, "Go on?", 60.0, is_approval=True, asker="coder", key="go-on")


@asynccontextmanager
async def asked(tmp_path: Path) -> AsyncIterator[tuple[Core, Programs]]:
    """A supervisor whose programs may reach the one conversation that there is, whose message is handled already."""
    async with scene(tmp_path) as (core, _):
        async with worker(core) as taking:
            [job] = await taking.take(1)
            await taking.finish(job, "done")
        yield core, programs(core, Reachable(frozenset({CONVERSATION})))


def programs(core: Core, reachable: Reachable) -> Programs:
    return Programs(core.from_outside, Conversations(core.client, core.store.keys), reachable)


async def ask(of: Programs, command: str, message: msgspec.Struct) -> tuple[str, dict[str, Any]]:
    """Why it is refused, '' if it is not, and what is told."""
    answer = await of.commands[command](Request(command, message=msgspec.Raw(msgspec.json.encode(message))))
    told: dict[str, Any] = msgspec.json.decode(answer.result)
    return answer.error, told


async def refused(of: Programs, message: msgspec.Struct, command: str = "mcp_ask") -> str:
    error, told = await ask(of, command, message)
    assert error, told
    return str(told["reason"])


def but(**others: object) -> OutsideQuestion:
    return msgspec.structs.replace(QUESTION, **others)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("mcp_send", OutsideMessage(ELSEWHERE, "hello")),
        ("mcp_ask", but(conversation_id=ELSEWHERE)),
        ("mcp_answer", AnswerWanted(ELSEWHERE, "asked:1")),
    ],
)
async def test_what_the_setting_does_not_name_is_refused_with_its_name(
    tmp_path: Path, command: str, message: msgspec.Struct
) -> None:
    async with asked(tmp_path) as (core, mine):
        for of in (mine, programs(core, Reachable())):
            error, told = await ask(of, command, message)
            assert (told["reason"], "HASHEE_MCP_CONVERSATIONS" in error) == ("not_allowed", True)


async def test_the_conversations_that_may_be_reached_are_listed(tmp_path: Path) -> None:
    async with asked(tmp_path) as (core, mine):
        for of in (mine, programs(core, Reachable(is_all=True))):
            _, told = await ask(of, "mcp_conversations", AnswerWanted("", ""))
            assert [one["conversation_id"] for one in told["conversations"]] == [CONVERSATION]
        assert await refused(programs(core, Reachable()), AnswerWanted("", ""), "mcp_conversations") == "not_allowed"


async def test_a_text_is_sent_once_for_its_key_and_nothing_else_is_sent(tmp_path: Path) -> None:
    async with asked(tmp_path) as (_, mine):
        message = OutsideMessage(CONVERSATION, "Deployed", key="one")
        assert [(await ask(mine, "mcp_send", message))[1]["outcome"] for _ in range(2)] == ["queued", "already"]
        assert await refused(mine, OutsideMessage(CONVERSATION, recall="outside:1"), "mcp_send") == "empty_text"
        assert await refused(mine, OutsideMessage(CONVERSATION, reminder="digest"), "mcp_send") == "empty_text"


async def test_a_question_is_a_job_of_its_conversation_once_for_its_key(tmp_path: Path) -> None:
    async with asked(tmp_path) as (core, mine):
        answers = [await ask(mine, "mcp_ask", one) for one in (QUESTION, but(seconds=90.0, asker="another"))]
        assert [told["outcome"] for _, told in answers] == ["queued", "already"], answers
        [name] = {told["id"] for _, told in answers}
        async with worker(core) as taking:
            [job] = await taking.take(1)
        assert (job.job_id, job.kind, job.message.sender_id) == (name, "reminder", PERSON)
        assert await refused(mine, but(question="Go back?")) == "key_used"
        wanted = AnswerWanted(CONVERSATION, name)
        assert (await ask(mine, "mcp_answer", wanted))[1] == {"answer": None}
        for at in (ELSEWHERE, CONVERSATION):
            body = msgspec.msgpack.encode(OutsideAnswer(at, "answered", approved=True, by=PERSON))
            key, agent_id = answer_key(name), core.keys.agent_id
            packed = pack_kept(body, STORE, "", key, key=KEYS.bus, agent_id=agent_id)
            await core.client.command("HSET", core.keys.store, key, packed)
            _, told = await ask(mine, "mcp_answer", wanted)
            assert bool(told["answer"]) is (at == CONVERSATION), "an answer is told where it was asked alone"


async def test_what_cannot_be_asked_is_refused_before_anything_is_placed(tmp_path: Path) -> None:
    async with asked(tmp_path) as (core, mine):
        assert await refused(mine, but(question=" ")) == "empty_text"
        assert await refused(mine, but(question="?" * (MOST_QUESTION_CHARACTERS + 1))) == "text_too_long"
        assert await refused(mine, but(seconds=0.0)) == "bad_time"
        assert await refused(mine, but(key="two words")) == "bad_key"
        assert await refused(mine, but(who="somebody else")) == "who_is_asked"
        everywhere = programs(core, Reachable(is_all=True))
        assert await refused(everywhere, but(conversation_id=ELSEWHERE)) == "unknown_conversation"


@pytest.mark.parametrize(
    "said",
    [
        b'{"conversation_id":"c","reminder":"digest","data":{"n":%d}}' % 2**64,
        b'{"conversation_id":"c","text":"hello","data":[-%d]}' % (2**63 + 1),
        b'{"conversation_id":"c","text":"\xff"}',
        b'{"conversation_id":"c","card":' + b'{"a":' * 30_000 + b"1" + b"}" * 30_001,  # deeper than any Python goes
        b'{"conversation_id":7}',
    ],
    ids=["over 64 bits", "under 64 bits", "no UTF-8", "deep", "another shape"],
)
async def test_what_no_record_holds_is_refused_and_ends_nothing(tmp_path: Path, said: bytes) -> None:
    """Whoever writes to the control socket in another language than Python can say it; the supervisor ended."""
    async with asked(tmp_path) as (core, _):
        operator = Operator(cast("Pool", None), cast("Reloading", None), core.from_outside)
        answer = await operator.commands["send"](Request("send", message=msgspec.Raw(said)))
        assert (answer.ok, msgspec.json.decode(answer.result)) == (False, {"reason": "bad_message"})
        huge = b'{"conversation_id":"c","what":"delta","stream_id":"s","seq":%d,"text":"x"}' % 2**64
        answer = await operator.commands["show"](Request("show", message=msgspec.Raw(huge)))
        assert (answer.ok, msgspec.json.decode(answer.result)) == (False, {"reason": "bad_message"})


async def test_in_a_group_it_is_said_whose_answer_counts(tmp_path: Path) -> None:
    async with asked(tmp_path) as (core, mine):
        await core.client.command("HSET", core.keys.conversation(CONVERSATION), "kind", GROUP, "person", CONVERSATION)
        error, told = await ask(mine, "mcp_ask", QUESTION)
        assert (told["reason"], "is a group" in error) == ("who_is_asked", True)
        assert (await ask(mine, "mcp_ask", but(who=PERSON)))[0] == ""
        async with worker(core) as taking:
            [job] = await taking.take(1)
        asked_of = msgspec.msgpack.decode(cast("bytes", job.message.payload["data"]), type=OutsideQuestion)
        assert (asked_of.who, job.message.sender_id) == (PERSON, "")


@pytest.mark.pure
def test_the_setting_names_conversations_or_all() -> None:
    assert Reachable.parse("one, two").ids == {"one", "two"}
    assert "three" in Reachable.parse("all")
    assert not Reachable()
    for text in ("all,one", "one,,two", "one two", "é", "x" * 129):
        with pytest.raises(Malformed):
            Reachable.parse(text)
