"""The built-in model handler against a local endpoint: whole answers, and each way in which one can fail."""

from pathlib import Path

import pytest
import trio

from tests.waiting import waiting_for
from tests.workers.endpoint import Endpoint, endpoint, events
from workers import Retry, TextTooLong
from workers.builtin.llm import make_agent
from workers.llm import LLMCut, LLMRefused, LLMSettings, LLMUnreachable
from workers.testing import Conversation, conversation

WITHIN_SECONDS = 10


def talk_to(server: Endpoint, **environ: str) -> Conversation:
    return conversation(make_agent({"OPENAI_BASE_URL": server.base_url, "HASHEE_LLM_MODEL": "small", **environ}))


async def test_an_answer_streams_and_its_duration_is_observed(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Be brief.\n", encoding="utf-8")
    async with endpoint() as server:
        server.body = events("Hel", "lo", "!", usage=(12, 3))
        chat = talk_to(server, HASHEE_LLM_SYSTEM_PROMPT_FILE=str(prompt))
        with waiting_for("the model's reply", WITHIN_SECONDS):
            [reply] = await chat.say("hi")
    assert (reply.text, reply.was_streamed) == ("Hello!", True)
    [request] = server.requests
    assert request["model"] == "small"
    assert request["stream"] is True
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]
    first, duration, prompt_tokens, completion_tokens = chat.observations
    assert (duration.metric, duration.labels) == ("business_llm_duration_ms", {"model": "small"})
    assert first.metric == "business_llm_first_token_seconds"
    assert 0 < first.value * 1000 <= duration.value
    assert (prompt_tokens.metric, prompt_tokens.labels["kind"], prompt_tokens.value) == (
        "business_llm_tokens",
        "prompt",
        12,
    )
    assert (completion_tokens.labels["kind"], completion_tokens.value) == ("completion", 3)


@pytest.mark.parametrize(("header", "seconds"), [("Retry-After: 7", 7), ("Retry-After: soon", 5), ("X: y", 5)])
async def test_a_busy_endpoint_brings_the_job_back_when_it_says(header: str, seconds: float) -> None:
    async with endpoint() as server:
        server.status, server.headers, server.body = "429 Too Many Requests", (header,), b"{}"
        with waiting_for("the refusal that may be tried again", WITHIN_SECONDS), pytest.raises(Retry) as caught:
            await talk_to(server).say("hi")
        assert caught.value.after_seconds == seconds
        assert len(server.requests) == 1


@pytest.mark.parametrize("declared_bytes", [None, 100_000])
async def test_a_cut_stream_is_a_failure_and_no_answer(declared_bytes: int | None) -> None:
    async with endpoint() as server:
        server.body, server.declared_bytes = events("Hel", "lo", finish=False), declared_bytes
        with waiting_for("the cut stream to be told", WITHIN_SECONDS), pytest.raises(LLMCut):
            await talk_to(server).say("hi")


async def test_half_an_event_is_a_cut_stream() -> None:
    async with endpoint() as server:
        server.body = events("Hel", finish=False) + b'data: {"choices": [{"del\n\n'
        with waiting_for("half an event to be told", WITHIN_SECONDS), pytest.raises(LLMCut):
            await talk_to(server).say("hi")


async def test_what_the_handler_makes_of_a_piece_may_fail_and_the_request_ends() -> None:
    async with endpoint() as server:
        server.body, server.stalls = events("x" * 60_000, "y" * 60_000, finish=False), True
        with waiting_for("the request to end with what failed", WITHIN_SECONDS):
            with pytest.raises(TextTooLong):
                await talk_to(server).say("hi")
            await server.hung_up.wait()


async def test_an_empty_answer_is_a_failure() -> None:
    async with endpoint() as server:
        server.body = events()
        with waiting_for("the stream that is silent to be told", WITHIN_SECONDS), pytest.raises(LLMCut):
            await talk_to(server).say("hi")


async def test_a_refusal_names_the_status_and_none_of_the_endpoints_words() -> None:
    async with endpoint() as server:
        server.status, server.body = "401 Unauthorized", b'{"error":{"message":"key sk-123 is wrong"}}'
        with waiting_for("the refusal to be told", WITHIN_SECONDS), pytest.raises(LLMRefused) as caught:
            await talk_to(server, OPENAI_API_KEY="sk-123").say("hi")
    assert caught.value.status == 401
    assert "sk-123" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    async with endpoint() as server:
        pass
    with waiting_for("the endpoint that is away to be told", WITHIN_SECONDS), pytest.raises(LLMUnreachable):
        await talk_to(server).say("hi")


async def test_a_cancelled_job_hangs_up_on_the_model() -> None:
    async with endpoint() as server:
        server.body, server.stalls = events("Hel", finish=False), True
        with waiting_for("the cancelled job to hang up on the model", WITHIN_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk_to(server).say, "hi")
                while not server.requests:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await server.hung_up.wait()


def test_the_key_is_not_shown() -> None:
    assert "sk-123" not in repr(LLMSettings.from_environ({"OPENAI_API_KEY": "sk-123"}))
