"""A form with a file: what is filled in reaches the handler typed, in whatever run, and is read there."""

from typing import Any

import pytest
from msgspec import Struct

from bus.records.records import Payload
from workers import (
    Agent,
    BadCard,
    BlockingChat,
    BlockingFile,
    Chat,
    FileBroken,
    Form,
    InboundFile,
    Message,
    NoAnswer,
)
from workers.kept.history import turn_of_answer
from workers.talk.cards import Field
from workers.testing import Harness, HarnessChat, conversation, survives


class Report(Struct):
    title: str
    photo: InboundFile
    receipt: InboundFile | None = None


class BlockingReport(Struct):
    title: str
    photo: BlockingFile


def asking(what: Any, said: list[Any], *, twice: bool = False) -> Agent:
    agent = Agent()

    @agent.on_command("report")
    async def report(chat: Chat) -> None:
        try:
            answer = await chat.ask(what)
        except NoAnswer as none:
            await chat.reply(f"no answer: {none.why}")
            return
        if twice:
            await chat.ask("Sure?")
        said.append(answer)
        found = answer["photo"] if isinstance(answer, dict) else answer.photo
        await chat.reply(f"{found.kind} {found.name} {(await found.bytes()).decode()}")

    return agent


def test_a_class_with_a_file_makes_a_form_with_one() -> None:
    assert [(one.id, one.type, one.required) for one in Form(Report).all_fields] == [
        ("title", "text", True),
        ("photo", "file", True),
        ("receipt", "file", False),
    ]
    assert [one.type for one in Form(BlockingReport).all_fields] == ["text", "file"]


@pytest.mark.parametrize("what", [Report, Form(Report), Form([Field(id="photo", label="Photo", type="file")])])
async def test_the_file_of_an_answer_is_read_in_the_run_that_goes_on_also_after_a_restart(what: Any) -> None:
    said = list[Any]()
    async with Harness(asking(what, said, twice=True)) as chat:
        [card] = await chat.say("/report")
        values = {"title": "A cat", "photo": chat.attach(b"meow", name="../cat.png")}
        if isinstance(what, Form) and not isinstance(what.fields, type):
            del values["title"]
        assert (await chat.press(card, values=values)).texts == ["Sure?"]
        await chat.restart()
        assert (await chat.say("yes")).texts == ["image cat.png meow"]
    [answer] = said
    if isinstance(answer, Report):
        assert (answer.title, answer.receipt) == ("A cat", None)


async def test_in_a_sync_handler_it_is_a_blocking_file() -> None:
    agent, read = Agent(), list[bytes]()

    @agent.on_command("report")
    def report(chat: BlockingChat) -> None:
        read.append(chat.ask(BlockingReport).photo.bytes())
        read.append(chat.ask(Form([Field(id="f", label="F", type="file")]), key="second")["f"].bytes())

    async with Harness(agent) as chat:
        [card] = await chat.say("/report")
        [card] = await chat.press(card, values={"title": "", "photo": chat.attach(b"one", name="a.txt")})
        await chat.press(card, values={"f": chat.attach(b"two", name="a.txt")})
    assert read == [b"one", b"one", b"two"], "the first in both runs that came to it"


@pytest.mark.parametrize(("is_sync", "says"), [(True, "Report.photo is of InboundFile"), (False, "is of BlockingFile")])
async def test_a_file_of_the_other_kind_of_handler_is_refused_with_the_remedy(*, is_sync: bool, says: str) -> None:
    agent = Agent()
    if is_sync:

        @agent.on_message("text")
        def ask(chat: BlockingChat) -> None:
            chat.ask(Report)
    else:

        @agent.on_message("text")
        async def ask_too(chat: Chat) -> None:
            await chat.ask(BlockingReport)

    with pytest.raises(BadCard, match=says) as refused:
        await conversation(agent).say("go")
    assert "`def` handler takes BlockingFile" in str(refused.value)


def test_several_files_in_a_field_are_refused_with_the_remedy() -> None:
    class Many(Struct):
        photos: list[InboundFile]

    with pytest.raises(
        BadCard, match=r"Many.photos is a list of files, and a field takes one: give each a field of its own"
    ):
        Form(Many)


NO_FILE: tuple[Any, ...] = ("no such id", 7, ["x"], {"filename": "a.txt"}, True, {"attachment_id": "file-1"})


@pytest.mark.parametrize("value", NO_FILE)
@pytest.mark.parametrize("what", [Report, Form([Field(id="photo", label="Photo", type="file")])])
async def test_what_is_no_file_is_asked_for_again(what: Any, value: object) -> None:
    async with Harness(asking(what, [])) as chat:
        [card] = await chat.say("/report")
        for tries in range(3):
            artifact: Payload = {"subtype": "response", "ref_artifact": card.card_id}
            artifact["payload"] = {"values": {"title": "x", "photo": value}}
            replies = await chat.send({"type": "artifact", "artifact": artifact})
            if tries < 2:
                assert replies[0].text == "Please look at 'photo' again."
                card = replies[1]
        assert replies.texts[-1] == "no answer: misfit"


async def test_a_file_that_cannot_be_opened_is_asked_for_again_and_another_one_fails_at_its_reading() -> None:
    agent, said = asking(Report, []), list[str]()

    async with Harness(agent) as chat:
        [card] = await chat.say("/report")
        broken = {**chat.attach(b"meow", name="cat.png"), "key": "AAAA"}
        replies = await chat.press(card, values={"title": "x", "photo": broken})
        said.append(replies[0].text)
        other_key = chat.attach(b"", name="x")["key"]
        with pytest.raises(FileBroken):
            await chat.press(
                replies[1], values={"title": "x", "photo": {**chat.attach(b"meow", name="c.png"), "key": other_key}}
            )
    assert said == ["Please look at 'photo' again."]


@pytest.mark.parametrize("left_out", [{}, {"receipt": None}, {"receipt": ""}])
async def test_a_file_that_may_be_left_out_is_none(left_out: dict[str, object]) -> None:
    said = list[Any]()
    async with Harness(asking(Report, said)) as chat:
        [card] = await chat.say("/report")
        await chat.press(card, values={"title": "x", "photo": chat.attach(b"meow", name="a"), **left_out})
    assert said[0].receipt is None


async def test_the_value_may_be_the_whole_attachment() -> None:
    """PROTOCOL §4.1: "a file the attachment as in §5.9"."""
    async with Harness(asking(Report, [])) as chat:
        [card] = await chat.say("/report")
        artifact: Payload = {"subtype": "response", "ref_artifact": card.card_id}
        artifact["payload"] = {"values": {"title": "x", "photo": chat.attach(b"meow", name="cat.png")}}
        assert (await chat.send({"type": "artifact", "artifact": artifact})).texts == ["image cat.png meow"]


async def test_a_form_that_nobody_waits_for_gives_its_files_with_the_message() -> None:
    agent, seen = Agent(), list[bytes]()

    @agent.on_message("text")
    async def show(chat: Chat) -> None:
        await chat.reply(Form(Report))

    @agent.on_artifact_response("form")
    async def answered(message: Message) -> None:
        seen.extend([await file.bytes() for file in message.files])

    chat = conversation(agent)
    [card] = await chat.say("go")
    await chat.answer(card.card_id, {"values": {"title": "x", "photo": chat.attach(b"meow", name="a.png")}})
    whole = {"subtype": "response", "ref_artifact": card.card_id}
    await chat.send(
        {"type": "artifact", "artifact": {**whole, "payload": {"values": {"photo": chat.attach(b"miau", name="a")}}}}
    )
    assert seen == [b"meow", b"miau"]


def test_how_a_file_is_opened_is_no_part_of_what_was_said() -> None:
    """A history goes to the language model."""
    entry = {"attachment_id": "file-1", "key": "SECRET", "filename": "cat.png"}
    turn = turn_of_answer({"values": {"photo": entry, "more": [{"attachment_id": "x", "key": "SECRET"}]}}, "ann", 0)
    assert turn.text == '[answer: {"photo":"[file: cat.png]","more":["[file]"]}]'


async def test_a_form_with_a_file_survives_a_kill_at_each_point() -> None:
    async def script(chat: HarnessChat) -> None:
        [card] = await chat.say("/report")
        await chat.press(card, values={"title": "A cat", "photo": chat.attach(b"meow", name="cat.png")})
        assert (await chat.say("yes")).texts == ["image cat.png meow"]

    assert (await survives(asking(Report, [], twice=True), script)).kills > 10
