"""Handlers are judged when they are registered."""

from collections.abc import AsyncIterator, Callable

import pytest

from workers import Agent, BadHandler, BadReply, Fail, JobContext, Retry, TextTooLong
from workers.builtin import default_handler
from workers.payloads import checked_payload, text_payload

pytestmark = pytest.mark.pure


def none() -> None: ...
def one(message: object) -> None: ...
def four(message: object, chat: object, job: object, more: object) -> None: ...
async def two(message: object, chat: object) -> None: ...
async def three(message: object, chat: object, job: object) -> None: ...
async def annotated(message: object, chat: object, context: JobContext) -> None: ...
async def by_name(message: object, chat: object, *, job: object) -> None: ...
async def by_place(message: object, chat: object, context: object) -> None: ...
async def own_default(message: object, chat: object, limit: int = 10) -> None: ...
async def job_with_default(message: object, chat: object, job: object = None) -> None: ...
def blocking(message: object, chat: object) -> None: ...


async def generator(message: object, chat: object) -> AsyncIterator[str]:
    yield "text"


@pytest.mark.parametrize(
    ("function", "job_parameter", "is_async"),
    [
        (two, None, True),
        (three, "job", True),
        (annotated, "context", True),
        (by_name, "job", True),
        (own_default, None, True),
        (job_with_default, "job", True),
        (blocking, None, False),
    ],
)
def test_the_signature_says_how_a_handler_is_called(
    function: Callable[..., object], job_parameter: str | None, is_async: bool
) -> None:
    agent = Agent()
    assert agent.on_message()(function) is function
    [handler] = agent.handlers
    assert (handler.job_parameter, handler.is_async) == (job_parameter, is_async)


@pytest.mark.parametrize("function", [none, one, four, generator])
def test_a_function_that_cannot_be_a_handler_is_refused_at_once(function: Callable[..., object]) -> None:
    with pytest.raises(BadHandler):
        Agent().on_message()(function)


async def test_the_job_is_given_to_the_parameter_that_asks_for_it() -> None:
    given = list[object]()
    agent = Agent()

    @agent.on_message()
    def answer(message: object, chat: object, count: int = 3, *, context: "JobContext") -> None:
        given.append((message, chat, count, context))

    agent.handlers[0].call_blocking("message", "chat", "job")  # type: ignore[arg-type]
    assert given == [("message", "chat", 3, "job")]


def test_a_third_parameter_is_taken_by_its_name_or_type_and_never_by_its_place() -> None:
    with pytest.raises(BadHandler, match="call it `job`, or annotate it with JobContext"):
        Agent().on_message()(by_place)


def test_forgotten_parentheses_are_named() -> None:
    with pytest.raises(BadHandler, match="parentheses"):
        Agent().on_message(two)  # type: ignore[arg-type]  # the mistake itself


def test_a_named_payload_type_comes_before_the_rest_and_none_is_taken_twice() -> None:
    agent = Agent()
    agent.on_message()(two)
    agent.on_message("image", "file")(three)
    image, text = agent.handler_for("image"), agent.handler_for("text")
    assert image is not None
    assert image.function is three
    assert text is not None
    assert text.function is two
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
