"""Handlers are judged when they are registered."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from bus.records.records import InboundMessage
from bus.settings.shared import default_handler
from tests.workers.doubles import job_of
from workers import Agent, BadHandler, BadReply, Fail, JobContext, Retry, TextTooLong
from workers.talk.payloads import checked_payload, text_payload

pytestmark = pytest.mark.pure


def none() -> None: ...
def one(text: object) -> None: ...
def four(message: object, chat: object, job: object, more: object) -> None: ...
async def two(message: object, chat: object) -> None: ...
async def three(message: object, chat: object, job: object) -> None: ...
async def annotated(message: object, chat: object, context: JobContext) -> None: ...
async def by_name(message: object, chat: object, *, job: object) -> None: ...
async def own_default(message: object, chat: object, limit: int = 10) -> None: ...
async def job_with_default(message: object, chat: object, job: object = None) -> None: ...
def blocking(message: object, chat: object) -> None: ...


async def generator(message: object, chat: object) -> AsyncIterator[str]:
    yield "text"


@pytest.mark.parametrize(
    ("function", "asks", "is_async"),
    [
        (none, [], False),
        (two, ["message", "chat"], True),
        (three, ["message", "chat", "job"], True),
        (annotated, ["message", "chat", "job"], True),
        (by_name, ["message", "chat", "job"], True),
        (own_default, ["message", "chat"], True),
        (job_with_default, ["message", "chat", "job"], True),
        (blocking, ["message", "chat"], False),
    ],
)
def test_the_signature_says_how_a_handler_is_called(
    function: Callable[..., object], asks: list[str], is_async: bool
) -> None:
    agent = Agent()
    assert agent.on_message()(function) is function
    [handler] = agent.handlers
    assert ([row.name for row in handler.binding.asks], handler.is_async) == (asks, is_async)


@pytest.mark.parametrize("function", [one, four, generator, len])
def test_a_function_that_cannot_be_a_handler_is_refused_at_once(function: Callable[..., object]) -> None:
    with pytest.raises(BadHandler):
        Agent().on_message()(function)


def message_of(payload_type: str) -> InboundMessage:
    return msgspec.structs.replace(job_of().message, payload={"type": payload_type})


def taker_of(agent: Agent, payload_type: str) -> object:
    course = agent.course_of(message_of(payload_type))
    return None if course is None else course.handler.function


def test_forgotten_parentheses_are_named() -> None:
    with pytest.raises(BadHandler, match="parentheses"):
        Agent().on_message(two)  # type: ignore[arg-type]  # the mistake itself


def test_a_named_payload_type_comes_before_the_rest_and_none_is_taken_twice() -> None:
    agent = Agent()
    agent.on_message()(two)
    agent.on_message("image", "file")(three)
    assert taker_of(agent, "image") is three
    assert taker_of(agent, "text") is two
    assert taker_of(agent, "a type of next year") is two
    with pytest.raises(BadHandler, match="file"):
        agent.on_message("file")(blocking)
    with pytest.raises(BadHandler, match="two"):
        agent.on_message()(blocking)
    with pytest.raises(BadHandler, match="payload types"):
        agent.on_message("txt")(blocking)


def test_a_text_over_the_limit_is_refused_with_its_length_and_without_its_words() -> None:
    text_payload("x" * 100_000, markdown=False)
    with pytest.raises(TextTooLong, match="100001") as caught:
        text_payload("secret " + "x" * 99_994, markdown=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "payload",
    [{}, {"type": 1}, {"type": "text"}, {"type": "text", "text": "\ud800"}, {"type": "file", "size": {1: object()}}],
)
def test_a_payload_that_is_no_payload_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(BadReply):
        checked_payload(payload)


def test_a_reason_is_a_code_since_it_is_stored_in_the_clear() -> None:
    assert Fail("no_such_order").reason == "no_such_order"
    with pytest.raises(ValueError, match="code"):
        Fail("Anna's order 17 does not exist")
    with pytest.raises(ValueError, match="86400"):
        Retry(after_seconds=-1)


def test_a_model_is_the_default_only_where_an_endpoint_is_set() -> None:
    assert default_handler({}) == "workers.builtin.echo:agent"
    assert default_handler({"OPENAI_API_KEY": "x"}) == "workers.builtin.llm:agent"
    assert default_handler({"OPENAI_BASE_URL": "x"}) == "workers.builtin.llm:agent"
