"""Pictures: a model that takes them is shown them, and of one that does not people hear so."""

import base64
from typing import Any

import pytest
import trio

from tests.workers.llm.endpoint import FakeEndpoint, endpoint, events, refusal
from workers import LLM, Agent, BadReply, BlockingLLM, BlockingMessage, FileBroken, LLMNoPictures, LLMRefused, Message
from workers.builtin.llm import GONE, NO_PICTURES, TOO_LARGE
from workers.builtin.llm import agent as builtin
from workers.llm.failures import is_about_pictures
from workers.llm.pictures import MOST_PICTURES_BYTES
from workers.testing import conversation

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()

REFUSALS = [
    (400, "Invalid content type. image_url is only supported by certain models."),
    (400, "This model does not support image inputs"),
    (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    (500, "this model is missing data required for image input"),
    (400, "llava-less is not a multimodal model"),
    (400, "At most 0 image(s) may be provided in one prompt."),
    (404, "No endpoints found that support image input"),
    (400, "You uploaded an unsupported image. Please make sure your image has of one the following formats"),
    (422, "Model only supports text, vision is not enabled"),
    (400, "Invalid image data"),
]
OTHERS = [
    (401, "Incorrect API key provided"),
    (400, "maximum context length is 4096 tokens"),
    (404, "The model `small` does not exist"),
    (429, "images are not supported while we are busy"),
    (500, "internal error"),
]


@pytest.fixture
def by_environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    def place(server: FakeEndpoint, **more: str) -> None:
        for name, value in {"OPENAI_BASE_URL": server.base_url, **more}.items():
            monkeypatch.setenv(name, value)

    return place


async def test_the_builtin_agent_looks_at_a_picture_and_remembers_that_there_was_one(by_environment: Any) -> None:
    async with endpoint(events("A cat."), events("Yes.")) as server:
        by_environment(server)
        chat = conversation(builtin)
        [reply] = await chat.send_file(PNG, name="cat.png", alt="Tom")
        [again] = await chat.say("sure?")
    assert (reply.text, again.text) == ("A cat.", "Yes.")
    last = server.requests[0]["messages"][-1]
    assert last == {
        "role": "user",
        "content": [{"type": "text", "text": "[image: Tom]"}, {"type": "image_url", "image_url": {"url": URL}}],
    }
    assert server.asked[1][1:] == [("user", "[image: Tom]"), ("assistant", "A cat."), ("user", "sure?")]


async def test_a_picture_beside_a_text_is_shown_too(by_environment: Any) -> None:
    async with endpoint(events("A cat.")) as server:
        by_environment(server)
        chat = conversation(builtin)
        await chat.send(
            {
                "type": "text",
                "text": "what is it?",
                "attachments": [chat.attach(PNG, name="a.png"), chat.attach(b"x", name="a.txt")],
            }
        )
    content = server.requests[0]["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert content[0]["text"] == "what is it?"


async def test_a_picture_that_is_quoted_is_shown_too(by_environment: Any) -> None:
    async with endpoint(events("A cat."), events("Tom.")) as server:
        by_environment(server)
        chat = conversation(builtin)
        await chat.send_file(PNG, name="cat.png", alt="Tom")
        await chat.say("what is he called?", quote=chat.message_id)
    content = server.requests[1]["messages"][-1]["content"]
    assert content == [{"type": "text", "text": "what is he called?"}, {"type": "image_url", "image_url": {"url": URL}}]


async def test_a_picture_that_the_relay_no_longer_has_is_asked_for_again(by_environment: Any) -> None:
    async with endpoint(events("hm")) as server:
        by_environment(server)
        chat = conversation(builtin)
        entry = {**chat.attach(PNG, name="cat.png"), "attachment_id": "gone"}
        [reply] = await chat.send({"type": "image", "attachment_id": "gone", "attachments": [entry]})
    assert reply.text == GONE
    assert server.requests == []


@pytest.mark.parametrize(("status", "words"), REFUSALS)
async def test_a_model_without_eyes_says_so_politely(by_environment: Any, status: int, words: str) -> None:
    async with endpoint(refusal(f"{status} No", {"message": words})) as server:
        by_environment(server)
        [reply] = await conversation(builtin).send_file(PNG, name="cat.png")
    assert reply.text == NO_PICTURES
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "words"), OTHERS)
def test_other_failures_are_not_taken_for_it(status: int, words: str) -> None:
    assert not is_about_pictures(status, {"error": {"message": words}})


async def test_a_failure_of_words_alone_is_never_taken_for_it(by_environment: Any) -> None:
    async with endpoint(refusal("400 No", {"message": "images are not supported"})) as server:
        by_environment(server)
        with pytest.raises(LLMRefused):
            await conversation(builtin).say("hi")


async def test_where_pictures_are_off_none_is_fetched_and_nobody_is_asked(by_environment: Any) -> None:
    async with endpoint(events("hm")) as server:
        by_environment(server, HASHEE_LLM_PICTURES="off")
        chat = conversation(builtin)
        [reply] = await chat.send_file(PNG, name="cat.png")
    assert reply.text == NO_PICTURES
    assert server.requests == []
    assert [one.metric for one in chat.observations] == []


async def test_a_picture_that_is_too_large_is_not_fetched(by_environment: Any) -> None:
    async with endpoint(events("hm")) as server:
        by_environment(server)
        [reply] = await conversation(builtin).send_file(PNG + bytes(MOST_PICTURES_BYTES), name="cat.png")
    assert reply.text == TOO_LARGE
    assert server.requests == []


async def test_a_broken_picture_is_shown_to_nobody(by_environment: Any) -> None:
    async with endpoint(events("hm")) as server:
        by_environment(server)
        chat = conversation(builtin)
        entry = {**chat.attach(PNG, name="cat.png"), "sha256": "0" * 64}
        with pytest.raises(FileBroken):
            await chat.send({"type": "image", "attachment_id": entry["attachment_id"], "attachments": [entry]})
    assert server.requests == []


async def test_a_later_run_fetches_and_asks_nothing(by_environment: Any) -> None:
    agent = Agent(llm=LLM())

    @agent.on_message("image")
    async def look(message: Message, llm: LLM) -> None:
        await llm.reply(images=message.files)
        if len(server.requests) == 1:
            server.requests.append({})
            raise RuntimeError

    async with endpoint(events("A cat.")) as server:
        by_environment(server)
        chat = conversation(agent)
        with pytest.raises(RuntimeError):
            await chat.send_file(PNG, name="cat.png")
        assert await chat.run_again() == []
        assert len(server.requests) == 2


async def test_what_is_no_picture_is_not_shown(by_environment: Any) -> None:
    agent = Agent(llm=LLM())

    @agent.on_message("file")
    async def look(message: Message, llm: LLM) -> None:
        await llm.reply(images=message.files)

    async with endpoint(events("hm")) as server:
        by_environment(server)
        with pytest.raises(BadReply, match="images="):
            await conversation(agent).send_file(b"x", name="a.txt")


def test_a_sync_handler_shows_pictures_too(by_environment: Any) -> None:
    agent = Agent(llm=LLM())

    @agent.on_message("image")
    def look(message: BlockingMessage, llm: BlockingLLM) -> None:
        try:
            llm.reply(images=message.files)
        except LLMNoPictures:
            llm.reply("Say that you are blind.")

    async def talk() -> None:
        async with endpoint(
            refusal("400 No", {"message": "no image support: images not supported"}), events("I am blind.")
        ) as server:
            by_environment(server)
            [reply] = await conversation(agent).send_file(PNG, name="cat.png")
            assert reply.text == "I am blind."

    trio.run(talk)
