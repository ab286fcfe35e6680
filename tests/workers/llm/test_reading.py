"""Each body that an endpoint was seen to send: the whole answer, or a failure by its name. Never half of one."""

import pytest

from tests.workers.llm.bodies import BODIES
from tests.workers.llm.endpoint import chunk, sse
from workers.errors import LLMCut, LLMError
from workers.llm import events
from workers.llm.finish import FILTER, LENGTH
from workers.llm.reading import MOST_ANSWER_CHARACTERS, AnswerReader, Completion, Usage, not_empty

pytestmark = pytest.mark.pure


def read(body: bytes, size: int = 0, *, is_whole: bool = True) -> Completion:
    """Reads a body in pieces of so many bytes."""
    reader, shown = AnswerReader(), ""
    for at in range(0, len(body), size or len(body) or 1):
        shown += reader.feed(body[at : at + (size or len(body))])
    found = not_empty(reader.end(is_whole=is_whole))
    assert found.text.startswith(shown) or "</think>" in shown
    return found


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_an_answer_or_none_however_it_is_split(name: str) -> None:
    body, expected = BODIES[name]
    for size in (0, 1, 7):
        if isinstance(expected, str):
            assert read(body, size).text == expected
        else:
            with pytest.raises(expected):
                read(body, size)


@pytest.mark.parametrize("name", [name for name, body in BODIES.items() if isinstance(body.text, str)])
def test_a_body_that_is_cut_off_anywhere_is_never_called_whole(name: str) -> None:
    body, expected = BODIES[name]
    for end in range(0, len(body), 1 + len(body) // 40):
        try:
            found = read(body[:end], is_whole=False)
        except LLMError:
            continue
        assert found.text == expected


@pytest.mark.parametrize("finish", ["length", "content_filter", "stop", "eos", ""])
def test_a_finish_reason_is_told(finish: str) -> None:
    assert read(sse(chunk("Hi"), chunk(finish=finish))).finish == finish


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("model_length", LENGTH),  # Mistral
        ("MAX_TOKENS", LENGTH),  # Gemini
        ("model_context_window_exceeded", LENGTH),  # GLM
        ({"type": "length", "length": 16}, LENGTH),  # SGLang's own API
        ("sensitive", FILTER),  # GLM
        ("SAFETY", FILTER),
        ({"type": None}, ""),
        (3, ""),
    ],
)
def test_a_limit_and_a_filter_are_known_by_each_endpoints_word(said: object, finish: str) -> None:
    assert read(sse(chunk("Hi"), chunk(finish=said))).finish == finish


def test_an_answer_that_was_cut_by_a_limit_stays_one_though_its_stream_ends_as_any_other() -> None:
    """As ChatMock and others send a second finish reason behind the first."""
    assert read(sse(chunk("Hi"), chunk(finish="length"), chunk(finish="stop"))).finish == LENGTH
    assert read(sse(chunk("Hi"), chunk(finish="tool_calls"), chunk(finish="stop"))).finish == "stop"


def test_what_the_endpoint_counted_is_told_as_far_as_it_is_a_number() -> None:
    counted = {"choices": [], "usage": {"prompt_tokens": 7.2, "completion_tokens": "3"}}
    assert read(sse(chunk("Hi"), counted)).usage == Usage(8, 3)
    assert read(sse(chunk("Hi"), counted, {"usage": {"prompt_tokens": None}})).usage == Usage(8, 3)
    assert read(sse(chunk("Hi"))).usage == Usage(None, None)


def test_an_answer_without_end_ends_at_a_bound_and_says_so() -> None:
    reader = AnswerReader()
    shown = "".join(reader.feed(sse(chunk("x" * 70_000), done=False)) for _ in range(5))
    found = reader.end(is_whole=False)
    assert reader.is_done
    assert (len(found.text), found.text, found.finish) == (MOST_ANSWER_CHARACTERS, shown, LENGTH)


@pytest.mark.parametrize("line", [b"x" * 1000, b"data: " + b"x" * 1000 + b"\n", b"{" + b"x" * 1000 + b"\n"])
def test_an_event_without_end_is_a_failure_and_takes_no_more_memory(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_EVENT_BYTES", 10_000)
    reader = AnswerReader()
    for _ in range(12):
        reader.feed(line)
    assert reader.failure is not None
    with pytest.raises(LLMCut):
        reader.end(is_whole=True)


def test_no_failure_and_no_repr_quotes_the_endpoint() -> None:
    secret = "sk-123 said Ann"
    with pytest.raises(LLMError) as caught:
        read(sse({"error": {"code": 400, "type": secret, "message": secret}}))
    assert secret not in str(caught.value)
    assert secret not in repr(read(sse(chunk(secret))))
