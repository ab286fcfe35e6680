"""`llm: LLM` in handlers, and the agent that comes with the runtime: what people see, what the model is told, and what is asked twice."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.waiting import waiting_for
from tests.workers.llm.bodies import BODIES
from tests.workers.llm.endpoint import Answer, FakeEndpoint, chunk, endpoint, events, refusal, sse
from workers import LLM, Agent, BadHandler, BadReply, CannotStart, Chat, LLMBusy, LLMCut, LLMError, LLMRefused, Message
from workers.builtin.llm import agent as builtin
from workers.errors import ChatClosed, LLMTooLong, WaitOutside
from workers.kept.words import Words
from workers.llm.model import whole_answer
from workers.llm.reading import MOST_ANSWER_CHARACTERS, Completion
from workers.testing import Conversation, Said, conversation

WITHIN_SECONDS = 10
NOTICES = {"length": Words().by_limit, "content_filter": Words().by_filter}


def agent_of(server: FakeEndpoint, **how: object) -> Agent:
    """The built-in agent, with its settings given."""
    agent = Agent(llm=LLM("Be brief.", base_url=server.base_url, model="small", **how))  # type: ignore[arg-type]

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    return agent


def talk_to(server: FakeEndpoint, **how: object) -> Conversation:
    return conversation(agent_of(server, **how))


async def say(chat: Conversation, text: str) -> list[Said]:
    with waiting_for("the agent's answer", WITHIN_SECONDS):
        return await chat.say(text)


async def test_an_answer_streams_and_is_measured() -> None:
    async with endpoint(events("Hel", "lo", "!", usage=(12, 3))) as server:
        chat = talk_to(server)
        [reply] = await say(chat, "hi")
    assert (reply.text, reply.was_streamed, reply.payload["markdown"]) == ("Hello!", True, True)
    [request] = server.requests
    assert (request["model"], request["stream"]) == ("small", True)
    assert server.asked == [[("system", "Be brief."), ("user", "hi")]]
    first, duration, read, written = chat.observations
    assert (duration.metric, duration.labels) == ("business_llm_duration_ms", {"model": "small"})
    assert first.metric == "business_llm_first_token_seconds"
    assert 0 < first.value * 1000 <= duration.value
    assert (read.metric, read.labels["kind"], read.value) == ("business_llm_tokens", "prompt", 12)
    assert (written.labels["kind"], written.value) == ("completion", 3)


async def test_what_the_endpoint_does_not_count_is_estimated() -> None:
    async with endpoint(events("Hello!")) as server:
        chat = talk_to(server)
        await say(chat, "hi")
    *_, read, written = chat.observations
    assert 0 < written.value < read.value < 50


async def test_the_builtin_agent_is_set_up_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("You are a pirate.\n", encoding="utf-8")
    async with endpoint(events("Ahoy!")) as server:
        environ = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-123",
            "HASHEE_LLM_MODEL": "parrot:7b",
            "HASHEE_LLM_SYSTEM_PROMPT_FILE": str(prompt),
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        [reply] = await say(conversation(builtin), "hi")
    assert reply.text == "Ahoy!"
    assert server.asked == [[("system", "You are a pirate."), ("user", "hi")]]
    assert (server.requests[0]["model"], server.keys) == ("parrot:7b", ["sk-123"])


async def test_each_body_is_a_whole_answer_or_a_failure_and_half_of_one_is_never_said() -> None:
    async with endpoint(b"") as server:
        for name in ("<think> … </think>", "plain JSON", "only [DONE], no finish reason (llm proxies of Gemini)"):
            server.say(BODIES[name].bytes)
            [reply] = await say(talk_to(server), "hi")
            assert reply.text == BODIES[name].text, name
        for name in (
            "half an event",
            "an error in mid-stream",
            "finish reason error",
            "nothing at all (LM Studio 2339)",
        ):
            server.say(BODIES[name].bytes)
            chat = talk_to(server)
            with pytest.raises(WaitOutside):
                await say(chat, "hi")
            assert await said_in_the_end(chat) == ([], LLMCut), name


async def said_in_the_end(chat: Conversation) -> tuple[list[str], type[LLMError] | None]:
    """Runs the job again until it does not ask for it; what it has said then, and what its handler heard."""
    for _ in range(20):
        try:
            with waiting_for("another run", WITHIN_SECONDS):
                return [said.text for said in await chat.run_again()], None
        except WaitOutside:
            continue
        except LLMError as error:
            return [], type(error)
    raise AssertionError("it waits for ever")


async def test_thoughts_that_nothing_opens_are_seen_while_they_come_and_are_not_in_the_answer() -> None:
    async with endpoint(sse(chunk("hm, "), chunk("yes\n</think>\nHello!"))) as server:
        [reply] = await say(talk_to(server), "hi")
    assert reply.text == "Hello!"


async def test_a_long_answer_goes_in_parts_and_is_whole() -> None:
    paragraphs = [f"{number} " + "x" * 900 for number in range(180)]
    async with endpoint(events(*(f"{one}\n\n" for one in paragraphs))) as server:
        chat = talk_to(server)
        first, second = await say(chat, "hi")
        assert (first.was_streamed, second.was_streamed) == (True, False)
        assert f"{first.text}\n\n{second.text}".split("\n\n") == paragraphs
        assert await chat.run_again() == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("finish", NOTICES)
async def test_an_answer_that_ended_before_its_time_says_so(finish: str) -> None:
    async with endpoint(sse(chunk("Half of"), chunk(finish=finish))) as server:
        [reply] = await say(talk_to(server), "hi")
    assert reply.text == f"Half of\n\n{NOTICES[finish]}"


async def test_an_answer_that_was_filtered_whole_is_a_clear_sentence() -> None:
    async with endpoint(sse(chunk(finish="content_filter"))) as server:
        [reply] = await say(talk_to(server), "hi")
    assert reply.text == NOTICES["content_filter"]


def test_an_answer_without_end_says_where_it_ends() -> None:
    text = whole_answer(Completion("x" * MOST_ANSWER_CHARACTERS, "length"), Words())
    assert text.endswith("limit.]")


async def test_a_second_run_pays_nothing_twice() -> None:
    async with endpoint(events("Hello!"), events("other")) as server:
        chat = talk_to(server)
        await say(chat, "hi")
        assert await chat.run_again() == []
        assert len(server.requests) == 1


async def test_an_answer_of_any_length_is_noted() -> None:
    text = "日本" * 70_000
    async with endpoint(events(text), events("other")) as server:
        chat = talk_to(server)
        agent = chat.agent
        parts = await say(chat, "hi")
        assert "".join(part.text for part in parts) == text
        heard: list[str] = []
        chat.agent = Agent(llm=agent.llm)

        @chat.agent.on_message()
        async def answer(llm: LLM) -> None:
            heard.append(await llm.reply())

        await chat.run_again()
        assert heard == [text]
        assert len(server.requests) == 1


async def test_a_failing_endpoint_is_asked_three_times_more_and_then_the_handler_hears_of_it() -> None:
    async with endpoint(refusal("500 Oops")) as server:
        chat = talk_to(server)
        waits = []
        for run in range(3):
            with pytest.raises(WaitOutside) as caught:
                await (say(chat, "hi") if run == 0 else chat.run_again())
            waits.append(caught.value.after_seconds)
        assert await said_in_the_end(chat) == ([], await _unreachable())
        assert len(server.requests) == 4
    assert 30 <= sum(waits) <= 36
    assert waits == sorted(waits)


async def _unreachable() -> type[LLMError]:
    from workers.errors import LLMUnreachable  # noqa: PLC0415

    return LLMUnreachable


@pytest.mark.parametrize("step_seconds", [0, 3600, -3600])
async def test_a_busy_endpoint_is_waited_for_as_long_as_it_says_whatever_a_clock_does_meanwhile(
    monkeypatch: pytest.MonkeyPatch, step_seconds: int
) -> None:
    """Each try may be another host's, whose clock is another."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: 100")) as server:
        chat = talk_to(server)
        waited = 0.0
        with pytest.raises(WaitOutside) as caught:
            await say(chat, "hi")
        while (after := caught.value.after_seconds) and waited < 600:
            assert 1 <= after <= 120
            waited += after
            now += step_seconds
            if waited >= 600:
                break
            with pytest.raises(WaitOutside) as caught:
                await chat.run_again()
        assert await said_in_the_end(chat) == ([], LLMBusy)


async def test_a_busy_endpoint_that_does_not_say_for_how_long_is_asked_ever_less_often() -> None:
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: nan")) as server:
        chat, waits = talk_to(server), []
        for run in range(6):
            with pytest.raises(WaitOutside) as caught:
                await (say(chat, "hi") if run == 0 else chat.run_again())
            waits.append(caught.value.after_seconds)
        assert waits[0] >= 5
        assert max(waits) <= 72
        assert waits[:4] == sorted(waits[:4])
        server.say(events("Hello!"))
        assert [said.text for said in await chat.run_again()] == ["Hello!"]


async def test_an_endpoint_that_says_now_and_is_busy_each_time_is_asked_ever_less_often() -> None:
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: 0")) as server:
        chat, waits = talk_to(server), list[float]()
        while sum(waits) < 500:
            with pytest.raises(WaitOutside) as caught:
                await (chat.run_again() if waits else say(chat, "hi"))
            waits.append(caught.value.after_seconds)
    assert len(waits) <= 25, "of 500 s, which it says are none"
    assert waits[:5] == sorted(waits[:5])
    assert 1 <= waits[0] <= max(waits) <= 36


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_what_was_refused_is_asked_once_and_the_handler_hears_of_it(status: str) -> None:
    async with endpoint(refusal(status, {"message": "no"})) as server:
        with pytest.raises(LLMRefused) as caught:
            await say(talk_to(server), "hi")
        assert len(server.requests) == 1
    assert caught.value.is_final


async def test_a_handler_may_catch_what_the_model_could_not() -> None:
    async with endpoint(refusal("401 Unauthorized")) as server:
        agent = agent_of(server)

        @agent.on_error(LLMError)
        async def sorry(chat: Chat) -> None:
            await chat.reply("My model is away.")

        assert [said.text for said in await say(conversation(agent), "hi")] == ["My model is away."]


async def test_the_model_is_told_what_was_said_before() -> None:
    async with endpoint(events("One."), events("Two."), events("Three.")) as server:
        chat = talk_to(server)
        for text in ("first", "second", "third"):
            await say(chat, text)
    assert server.asked[-1] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "One."),
        ("user", "second"),
        ("assistant", "Two."),
        ("user", "third"),
    ]


async def test_of_what_was_said_the_newest_whole_turns_that_fit_are_told() -> None:
    async with endpoint(events("x" * 100, usage=(0, 0))) as server:
        chat = talk_to(server, history_tokens=75)
        for number in range(5):
            await say(chat, f"{number} {'y' * 98}")
    roles = [role for role, _ in server.asked[-1]]
    assert roles == ["system", "user", "assistant", "user"]
    assert server.asked[-1][1][1].startswith("3 ")
    async with endpoint(events("x")) as server:
        chat = talk_to(server, history_tokens=0)
        await say(chat, "one")
        await say(chat, "two")
    assert server.asked[-1] == [("system", "Be brief."), ("user", "two")]


async def test_where_the_context_is_too_long_the_older_half_goes_once() -> None:
    too_long = refusal("400 Bad Request", {"code": "context_length_exceeded"})
    async with endpoint(events("x")) as server:
        chat = talk_to(server)
        for number in range(4):
            await say(chat, str(number))
        server.requests.clear()
        server.say(too_long, events("fits"))
        assert [said.text for said in await say(chat, "now")] == ["fits"]
        assert [[text for _, text in asked[1:]] for asked in server.asked] == [
            ["0", "x", "1", "x", "2", "x", "3", "x", "now"],
            ["2", "x", "3", "x", "now"],
        ]
        server.say(too_long)
        server.requests.clear()
        with pytest.raises(LLMTooLong):
            await say(chat, "still")
        assert len(server.requests) == 2


async def test_turns_of_one_side_that_follow_each_other_are_one() -> None:
    async with endpoint(events("Yes?")) as server:
        agent = Agent(llm=LLM("", base_url=server.base_url))

        @agent.on_message("text", when="quiet")
        async def nothing() -> None:
            """Says nothing."""

        @agent.on_message("text")
        async def answer(llm: LLM) -> None:
            await llm.reply()

        chat = conversation(agent)
        await say(chat, "quiet")
        await say(chat, "hello")
    assert [role for role, _ in server.asked[-1]] == ["system", "user"]
    assert server.asked[-1][-1] == ("user", "quiet\n\nhello")


async def test_a_handler_says_what_is_to_be_answered_by_which_model_and_quotes() -> None:
    async with endpoint(events("Arr.")) as server:
        agent = Agent(llm=LLM(base_url=server.base_url, options={"temperature": 0.2}))

        @agent.on_message("text")
        async def answer(message: Message, llm: LLM) -> None:
            assert await llm.reply("Say arr.", model="big", system="A pirate.", quote=True, markdown=False) == "Arr."

        [reply] = await say(conversation(agent), "hi")
    assert "markdown" not in reply.payload
    assert reply.payload["reply_to"]
    assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("big", 0.2)
    assert server.asked == [[("system", "A pirate."), ("user", "Say arr.")]]


async def test_a_job_without_words_needs_a_prompt() -> None:
    async with endpoint(events("x")) as server:
        agent = Agent(llm=LLM(base_url=server.base_url))

        @agent.on_event("relation.established")
        async def met(llm: LLM) -> None:
            await llm.reply()

        with pytest.raises(BadReply, match="say what is to be answered"):
            await conversation(agent).event("relation.established")


async def test_a_cancelled_job_hangs_up_on_the_model() -> None:
    async with endpoint(Answer(body=events("Hel", finish=False), then="silence")) as server:
        with waiting_for("the cancelled job to hang up on the model", WITHIN_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk_to(server).say, "hi")
                while not server.requests:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await server.hung_up.wait()


async def test_the_agents_own_llm_is_no_handlers() -> None:
    with pytest.raises(ChatClosed, match="llm: LLM"):
        await LLM().reply()


def test_an_agent_without_a_model_says_what_there_is() -> None:
    with pytest.raises(BadHandler, match="llm"):

        @Agent().on_message()
        async def answer(llm: LLM) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", "sk-1\nsk-2"),
        ("OPENAI_API_KEY", "sk-1\n"),
        ("OPENAI_API_KEY", '"sk-1"'),
        ("OPENAI_API_KEY", "'sk-1'"),
        ("OPENAI_API_KEY", "sk 1"),
        ("OPENAI_API_KEY", "sk-ü"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1\n"),
        ("OPENAI_BASE_URL", '"http://127.0.0.1:1/v1"'),
        ("OPENAI_BASE_URL", "http://127.0.0.1 :1/v1"),
        ("OPENAI_BASE_URL", "127.0.0.1:1/v1"),
        ("OPENAI_BASE_URL", "http:///v1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:99999/v1"),
        ("HASHEE_LLM_MODEL", "two words"),
        ("HASHEE_LLM_HISTORY_TOKENS", "many"),
        ("HASHEE_LLM_WAIT_SECONDS", "-1"),
        ("HASHEE_LLM_SYSTEM_PROMPT_FILE", "/nowhere/at/all.txt"),
    ],
)
async def test_a_setting_that_cannot_work_is_refused_at_the_start_by_its_name(name: str, value: str) -> None:
    with pytest.raises(CannotStart, match=f"^{name} ") as caught:
        async with LLM().opened({name: value}):
            pass
    assert value.strip() not in str(caught.value)


@pytest.mark.parametrize("how", [{"api_key": "a b"}, {"base_url": "localhost"}, {"model": "a b"}, {"model": 3}])
def test_an_argument_that_cannot_work_is_refused_at_import(how: Mapping[str, str]) -> None:
    [name] = how
    with pytest.raises(BadHandler, match=name):
        LLM(**how)  # type: ignore[arg-type]


async def test_the_key_is_not_shown() -> None:
    async with LLM(api_key="sk-123").opened({}) as opened:
        assert "sk-123" not in repr(opened) + repr(opened.llm) + repr(opened.endpoint) + str(vars(opened.endpoint))
