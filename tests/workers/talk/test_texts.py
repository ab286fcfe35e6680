"""Long texts: parts that fit, nothing lost, fences closed and opened again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.doubles import MemoryBus
from tests.workers.talk.test_chat import run
from workers import Agent, Chat, InboundMessage
from workers.talk.texts import parts_of

pytestmark = pytest.mark.pure
LIMIT = 400


@given(st.text(alphabet=st.sampled_from("ab \n`~"), max_size=3000))
def test_every_part_fits_and_no_word_is_lost(text: str) -> None:
    parts = parts_of(text, LIMIT)
    assert all(len(part) <= LIMIT for part in parts)
    assert len(parts) == 1 or len(text) > LIMIT
    letters = [character for part in parts for character in part if character in "ab"]
    assert len(letters) >= sum(character in "ab" for character in text)


def test_a_text_is_cut_at_paragraphs_else_lines_else_words_else_anywhere() -> None:
    word = "w" * 150
    assert parts_of(f"{word}\n\n{word}\n\n{word}", LIMIT) == [word, f"{word}\n\n{word}"]
    assert parts_of(f"{word}\n{word}\n{word}", LIMIT)[0] == word
    assert parts_of(f"{word} {word} {word}", LIMIT)[0] == word
    assert "".join(parts_of("w" * 1000, LIMIT)) == "w" * 1000


def test_a_fence_that_is_cut_is_closed_and_opened_again() -> None:
    code = "\n".join(f"line {number}" for number in range(100))
    first, *others = parts_of(f"Look:\n```python\n{code}\n```\nDone.", LIMIT)
    assert first.endswith("\n```")
    assert all(part.startswith("```python\n") for part in others)
    assert all(part.count("```") == 2 for part in (first, *others))
    assert others[-1].endswith("\n```\nDone.")


async def test_a_reply_that_is_too_long_goes_in_parts_each_in_its_place() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("a" * 150_000, quote=True, markdown=True)
        await chat.reply("b" * 150_000, key="long")
        await chat.reply("end")

    bus = MemoryBus()
    await run(agent, bus)
    assert [place for place, _ in bus.replies] == ["0", "1", "key:long", "key:long~2", "2"]
    payloads = [reply.payload for _, reply in bus.replies]
    assert ["reply_to" in one for one in payloads] == [True, False, False, False, False]
    assert [bool(one.get("markdown")) for one in payloads] == [True, True, False, False, False]
    again = MemoryBus(emitted_before=frozenset({"0", "1", "key:long"}))
    await run(agent, again)
    assert [place for place, _ in again.replies] == ["key:long~2", "2"]
