"""Files in a conversation, as a handler sees them: what people send, and what it sends."""

import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from workers import (
    Agent,
    Audio,
    BadCard,
    BadFile,
    BlockingChat,
    BlockingMessage,
    Chat,
    ChatClosed,
    File,
    FileBroken,
    FileError,
    FileNotSaved,
    FileNotText,
    FileTooLarge,
    HistoryNotKept,
    Image,
    InboundFile,
    InboundMessage,
    Info,
    Job,
    Media,
    Message,
    Quoted,
    Video,
)
from workers.talk.cards import Card
from workers.testing import Conversation, Harness, HarnessChat, conversation, survives

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def reading(seen: list[InboundFile]) -> Agent:
    agent = Agent()

    @agent.on_message()
    async def read(message: Message, chat: Chat) -> None:
        seen.extend(message.files)
        for file in message.files:
            await chat.reply(f"{file.kind} {file.name} {file.type} {len(await file.bytes())}")

    return agent


async def test_a_handler_reads_what_a_person_sends() -> None:
    seen = list[InboundFile]()
    chat = conversation(reading(seen))
    for name, said in [
        ("notes.md", "file notes.md text/markdown 5"),
        ("cat.png", "image image image/png 5"),
        ("../../x.ogg", "audio audio audio/ogg 5"),
        ("\u202efdp.exe", "file fdp.exe application/octet-stream 5"),
    ]:
        [reply] = await chat.send_file(b"12345", name=name)
        assert reply.text == said.replace("image image", "image cat.png").replace("audio audio", "audio x.ogg")
    assert [file.percent for file in seen] == [100.0] * 4


async def test_a_message_without_files_has_none() -> None:
    assert await conversation(reading([])).say("hello") == []


async def test_texts_are_cut_between_characters_and_not_within(tmp_path: Path) -> None:
    agent, found = Agent(), list[tuple[str, float]]()
    text = "\ufeff" + "äöü€𝄞" * 600_000

    @agent.on_message("file")
    async def read(message: Message) -> None:
        [file] = message.files
        async for piece in file.texts(of=1_000_000):
            found.append((piece, file.percent))

    await conversation(agent).send_file(text.encode(), name="a.txt")
    assert "".join(piece for piece, _ in found) == text[1:]
    assert [len(piece) for piece, _ in found] == [1_000_000] * 3
    assert [percent for _, percent in found] == sorted(percent for _, percent in found)


@pytest.mark.parametrize(
    ("content", "at"), [(b"abc\xff", 3), (b"abc\0def", 3), ("é".encode()[:1], 0), (bytes(2_000_000) + b"x", 0)]
)
async def test_a_file_that_is_no_text_gets_a_clear_error(content: bytes, at: int) -> None:
    agent = Agent()

    @agent.on_message("file")
    async def read(message: Message) -> None:
        async for _ in message.files[0].texts(of=10):
            pass

    with pytest.raises(FileNotText, match="no text in UTF-8") as refused:
        await conversation(agent).send_file(content, name="a.txt")
    assert refused.value.at == at


async def test_a_file_is_saved_at_once_or_not_at_all(tmp_path: Path) -> None:
    agent = Agent()
    (tmp_path / "notes.md").write_bytes(b"before")

    @agent.on_message("file")
    async def read(message: Message, chat: Chat) -> None:
        await chat.reply(str(await message.files[0].save(tmp_path)))

    chat = conversation(agent)
    [reply] = await chat.send_file(b"after", name="../notes.md")
    assert reply.text == str(tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_bytes() == b"after"
    assert stat.S_IMODE((tmp_path / "notes.md").stat().st_mode) == 0o600
    broken = {"attachments": [], "type": "file", "attachment_id": "file-1", "filename": "notes.md"}
    with pytest.raises(FileBroken):
        await chat.send(broken)
    assert names_in(tmp_path) == ["notes.md"]
    assert (tmp_path / "notes.md").read_bytes() == b"after"


async def test_nothing_is_left_where_a_file_cannot_be_saved(tmp_path: Path) -> None:
    """The error has the folder and no name, which is a person's word: its text reaches the log."""
    agent = Agent()

    @agent.on_message("file")
    async def read(message: Message) -> None:
        await message.files[0].save(tmp_path / "no such folder" / message.files[0].name)

    with pytest.raises(FileNotSaved, match=f"No such file or directory .in {tmp_path}/no such folder") as failed:
        await conversation(agent).send_file(b"after", name="notes.md")
    assert names_in(tmp_path) == []
    assert "notes" not in str(failed.value)


async def test_too_much_for_the_memory_is_refused_before_it_is_read() -> None:
    agent = Agent()

    @agent.on_message("file")
    async def read(message: Message) -> None:
        await message.files[0].bytes(most=4)

    with pytest.raises(FileTooLarge, match=r"bytes\(most=…\)"):
        await conversation(agent).send_file(b"12345", name="notes.md")


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "AAAA"},
        {"sha256": "0" * 64},
        {"size": 4},
        {"size": 2**40},
        {"size": -1},
        {"file_id": "another"},
        {"file_id": "../x"},
        {"nonce_prefix": 7},
        {"filename": None},
    ],
)
async def test_a_broken_file_fails_its_reading_and_nothing_else(changes: dict[str, object]) -> None:
    agent, good = Agent(), list[bytes]()

    @agent.on_message("text")
    async def read(message: Message, chat: Chat) -> None:
        await chat.reply(message.text)
        for file in message.files:
            try:
                good.append(await file.bytes())
            except FileBroken:
                await chat.reply("broken")

    chat = conversation(agent)
    entries = [chat.attach(b"12345", name="a.txt"), chat.attach(b"whole", name="b.txt")]
    replies = await chat.send({"type": "text", "text": "look", "attachments": [{**entries[0], **changes}, entries[1]]})
    assert [one.text for one in replies] == ["look", "broken"]
    assert good == [b"whole"]


@pytest.mark.parametrize("attachment_id", ["../keys/users/U/devices", "a/b", "", "x" * 129, "a b"])
async def test_an_id_that_is_none_is_asked_of_nobody(attachment_id: str) -> None:
    chat = conversation(reading([]))
    entry = {**chat.attach(b"12345", name="a.txt"), "attachment_id": attachment_id}
    with pytest.raises(FileBroken, match="attachment_id"):
        await chat.send({"type": "file", "attachment_id": attachment_id, "attachments": [entry]})


async def test_the_files_of_a_card_and_of_a_form_are_those_that_it_names_first() -> None:
    agent, seen = Agent(), list[list[str]]()

    @agent.on_message()
    async def read(message: Message) -> None:
        seen.append([f"{file.kind} {file.name}" for file in message.files])

    chat = conversation(agent)
    one, two, three = (chat.attach(b"x", name=name) for name in ("a.txt", "b.png", "c.pdf"))
    items = [
        {"attachment_id": two["attachment_id"], "kind": "image"},
        {"attachment_id": one["attachment_id"], "kind": "video"},
    ]
    artifact = {"subtype": "media", "artifact_id": "x", "payload": {"items": items}}
    await chat.send({"type": "artifact", "artifact": artifact, "attachments": [one, two, three]})
    assert seen == [["image b.png", "video a.txt", "file c.pdf"]]


async def test_messages_that_are_handled_together_have_each_its_own_files(mock_clock: trio.testing.MockClock) -> None:
    agent, seen = Agent(when_busy="coalesce"), list[list[bytes]]()

    @agent.on_message()
    async def read(message: Message, job: Job) -> None:
        assert message.files == job.messages[-1].files
        seen.extend([[await file.bytes() for file in one.files] for one in job.messages])
        if len(seen) == 1:
            await trio.sleep(1)  # the others come meanwhile

    async with Harness(agent) as chat:
        await chat.send_file(b"first", name="first.txt", seconds=0.1)
        for content in (b"one", b"two"):
            await chat.post(chat.file_payload(content, name="a.txt"))
        await chat.say("and these?")
    assert seen == [[b"first"], [b"one"], [b"two"], []]


async def test_what_a_message_quotes_is_there_with_its_files() -> None:
    agent, seen = Agent(history=True), list[Quoted | None]()

    @agent.on_message()
    async def read(message: Message, chat: Chat) -> None:
        seen.append(message.quoted)
        for file in message.quoted.files if message.quoted else ():
            await chat.reply(f"{file.kind} {file.name} {(await file.bytes()).decode()}")

    async with Harness(agent) as chat:
        entries = list[dict[str, object]]()
        for content in (b"one", b"two"):
            payload = chat.file_payload(content, name=f"{content.decode()}.txt")
            entries += msgspec.convert(payload["attachments"], list[dict[str, object]])
        await chat.send({"type": "text", "text": "two files", "attachments": entries})
        first = chat.message_id
        await chat.restart()
        replies = await chat.say("what are they?", quote=first)
        assert replies.texts == ["file one.txt one", "file two.txt two"]
        await chat.say("unknown", quote="another id")
    _, known, unknown = seen
    assert known is not None
    assert (known.message_id, known.is_known, known.sender_id, known.text) == (first, True, "ann", "two files")
    assert unknown == Quoted("another id")


async def test_a_quoted_picture_says_what_it_shows_and_is_gone_when_it_is_forgotten() -> None:
    agent = Agent(history=True)

    @agent.on_command("forget")
    async def forget(chat: Chat) -> None:
        await chat.forget()

    @agent.on_message()
    def read(message: BlockingMessage, chat: BlockingChat) -> None:
        if message.quoted is not None:
            chat.reply(
                f"{message.quoted.is_known} {[(one.kind, one.alt, one.bytes()) for one in message.quoted.files]}"
            )

    async with Harness(agent) as chat:
        await chat.send_file(b"meow", name="cat.png", alt="a cat")
        quoted = chat.message_id
        assert (await chat.say("this?", quote=quoted)).text == "True [('image', 'a cat', b'meow')]"
        await chat.say("/forget")
        assert (await chat.say("this?", quote=quoted)).text == "False []"


async def test_messages_that_are_handled_together_may_quote_one_another(mock_clock: trio.testing.MockClock) -> None:
    agent, seen = Agent(when_busy="coalesce"), list[bytes]()  # where nothing is kept

    @agent.on_message()
    async def read(message: Message, job: Job) -> None:
        if message.text == "first":
            await trio.sleep(1)
        if message.quoted is not None:
            assert (message.quoted.text, message.quoted.is_known) == ("", True)
            seen.extend([await file.bytes() for file in message.quoted.files])

    async with Harness(agent) as chat:
        await chat.say("first", seconds=0.1)
        await chat.post(chat.file_payload(b"one", name="a.txt"))
        await chat.say("what is it?", quote=chat.message_id)
    assert seen == [b"one"]


async def test_without_a_history_what_is_quoted_is_a_clear_error() -> None:
    agent = Agent()

    @agent.on_message()
    async def read(message: Message) -> None:
        assert message.quoted is None

    chat = conversation(agent)
    await chat.say("hello")
    with pytest.raises(HistoryNotKept, match=r"Agent\(history=True\)"):
        await chat.say("and this?", quote=chat.message_id)


async def test_a_message_of_no_run_quotes_nothing_that_can_be_read() -> None:
    agent = Agent()

    @agent.on_message("text", when=lambda message: message.quoted is not None)
    async def read(chat: Chat) -> None:
        await chat.reply("quoted")

    chat = conversation(agent)
    with pytest.raises(ChatClosed, match="its own message"):
        await chat.say("hello", quote="an id")


def test_the_plain_message_has_no_files_to_read() -> None:
    assert not hasattr(InboundMessage, "files")
    assert issubclass(Message, InboundMessage)


# What a handler sends


async def test_files_pictures_and_sounds_arrive_as_they_were_sent(tmp_path: Path) -> None:
    agent = Agent()
    (tmp_path / "report.pdf").write_bytes(b"%PDF")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            yield b"piece "

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        await chat.reply(File(tmp_path / "report.pdf"), quote=True)
        await chat.reply(File("grüße", name="../summary.md"))
        await chat.reply(File(pieces(), name="log.txt"))
        await chat.reply(Image(PNG, alt="a cat"))
        await chat.reply(Audio(b"OggS", name="hello.ogg", seconds=2.5, transcript="hello"))
        await chat.reply(Video(b"x", type="video/mp4", seconds=3))

    chat = conversation(agent)
    said = await chat.say("go")
    assert [chat.content_of(one) for one in said] == [b"%PDF", "grüße".encode(), b"piece " * 3, PNG, b"OggS", b"x"]
    shown = [
        {name: value for name, value in one.payload.items() if name not in ("attachment_id", "attachments", "reply_to")}
        for one in said
    ]
    assert shown == [
        {"type": "file", "filename": "report.pdf", "mime": "application/pdf", "size": 4},
        {"type": "file", "filename": "summary.md", "mime": "text/markdown", "size": 7},
        {"type": "file", "filename": "log.txt", "mime": "text/plain", "size": 18},
        {"type": "image", "alt": "a cat"},
        {"type": "audio", "duration_s": 2.5, "transcript": "hello"},
        {"type": "video", "duration_s": 3},
    ]
    assert "reply_to" in said[0].payload
    assert await chat.run_again() == []


async def test_a_media_card_has_several_and_uploads_each_once() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        await chat.reply(
            Media([Image(PNG, alt="one"), Video(b"x", name="b.mp4"), Audio(b"y", name="c.mp3")], body="Three")
        )

    chat = conversation(agent)
    [card] = await chat.say("go")
    assert [chat.content_of(card, number) for number in range(3)] == [PNG, b"x", b"y"]
    named = [one["attachment_id"] for one in msgspec.convert(card.payload["attachments"], list[dict[str, object]])]
    items = msgspec.convert(card.card["items"], list[dict[str, object]])
    assert [one["attachment_id"] for one in items] == named
    assert [(one["kind"], one.get("alt")) for one in items] == [("image", "one"), ("video", None), ("audio", None)]
    assert await chat.run_again() == []


async def test_a_run_that_comes_again_uploads_nothing_twice() -> None:
    agent, runs = Agent(), list[int]()

    @agent.on_message("text")
    async def send(chat: Chat, job: Job) -> None:
        runs.append(job.attempt)
        await chat.reply(File(f"run {job.attempt}", name="a.txt"))
        if job.attempt == 1:
            raise RuntimeError
        await chat.reply("done")

    chat = conversation(agent)
    with pytest.raises(RuntimeError):
        await chat.say("go")
    said = await chat.run_again()
    assert [one.payload["type"] for one in said] == ["text"]  # the file has gone out
    assert runs == [1, 2]


async def test_a_file_goes_to_another_conversation_sealed_for_it() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        await chat.to("another").reply(File(b"x", name="a.txt"))
        await chat.to("another").reply(Media([Image(PNG)]))

    chat = conversation(agent)
    await chat.say("go")
    [(_, file), (_, card)] = chat.elsewhere
    assert chat.content_in(file, "another") == b"x"
    assert chat.content_in(card, "another") == PNG


def test_a_sync_handler_reads_and_sends_files(tmp_path: Path) -> None:
    agent = Agent()

    @agent.on_message("file")
    def read(message: BlockingMessage, chat: BlockingChat) -> None:
        [file] = message.files
        chunks, texts = list(file.chunks()), list(file.texts(of=2))
        saved = file.save(tmp_path / "x").read_bytes()
        assert (b"".join(chunks), texts, saved, file.bytes()) == (b"12345", ["12", "34", "5"], b"12345", b"12345")
        assert (file.percent, file.size, file.id != "") == (100.0, 5, True)
        chat.reply(File(b"back", name=file.name))

    async def talk() -> None:
        chat = conversation(agent)
        [reply] = await chat.send_file(b"12345", name="a.txt")
        assert chat.content_of(reply) == b"back"

    trio.run(talk)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: File("report.pdf"), r"File\(Path\(…\)\)"),
        (lambda: File(b"x"), "name="),
        (lambda: File(Path("/no such file")), "No such file"),
        (lambda: File(Path("/")), "no file"),
        (lambda: File(7), "not of int"),  # type: ignore[arg-type]
        (lambda: File(b"x", name="a", type="png"), "media type"),
        (lambda: Image(b"x", name="a.pdf"), "application/pdf"),
        (lambda: Audio(b"OggS", seconds=-1), "seconds"),
        (lambda: Image(PNG, alt="x" * 10_001), "alt"),
        (lambda: Image(PNG, thumbnail="x" * 40_000), "thumbnail"),
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_made(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(BadFile, match=says):
        make()


def test_a_media_card_takes_what_it_can_show() -> None:
    with pytest.raises(BadCard, match="by itself"):
        Media([File(b"x", name="a.pdf")])
    with pytest.raises(BadCard, match="16"):
        Media([Image(PNG)] * 17)


def sent_files(chat: Conversation) -> int:
    return sum(1 for one in chat.observations if (one.metric, one.labels["direction"]) == ("worker_files", "out"))


async def test_an_update_of_a_media_card_uploads_what_is_new_once() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat, job: Job) -> None:
        card = await chat.reply(Media([Image(PNG, alt="one")]))
        await chat.update(card, Media([Image(PNG, alt="one"), Video(b"x", name="b.mp4")], body="Two"))
        await chat.update(card, Media([Image(PNG + b"2", alt="three")]), key="last")
        if job.attempt == 1:
            raise RuntimeError

    chat = conversation(agent)
    with pytest.raises(RuntimeError):
        await chat.say("go")
    assert sent_files(chat) == 4
    assert await chat.run_again() == []
    assert sent_files(chat) == 4


async def test_a_card_whose_second_file_fails_uploads_its_first_once() -> None:
    """That it was uploaded stands in the journal, before anything of the card is said."""
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat, job: Job) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            await trio.lowlevel.checkpoint()
            yield b"x"
            if job.attempt == 1:
                raise RuntimeError

        await chat.reply(Media([Image(PNG), Video(pieces(), name="b.mp4")]))

    chat = conversation(agent)
    with pytest.raises(RuntimeError):
        await chat.say("go")
    assert sent_files(chat) == 1
    [card] = await chat.run_again()
    assert [chat.content_of(card, number) for number in range(2)] == [PNG, b"x"]
    assert sent_files(chat) == 2


async def test_the_update_names_what_it_shows_and_how_that_is_opened() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        card = await chat.reply(Media([Image(PNG, alt="one")]))
        await chat.update(card, Media([Image(PNG, alt="one"), Video(b"x", name="b.mp4")], body="Two"))

    chat = conversation(agent)
    card, update = await chat.say("go")
    assert (update.card_id, update.revision, update.card["body"]) == (card.card_id, 1, "Two")
    items = msgspec.convert(update.card["items"], list[dict[str, object]])
    assert [one["attachment_id"] for one in items] == [one["attachment_id"] for one in update.files]
    assert [chat.content_of(update, number) for number in range(2)] == [PNG, b"x"]


async def test_an_update_of_a_media_card_survives_a_kill_at_each_point() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        card = await chat.reply(Media([Image(PNG)]))
        await chat.update(card, Media([Image(PNG + b"2"), Image(PNG + b"3")]))
        await chat.reply("done")

    async def script(chat: HarnessChat) -> None:
        card, update, done = await chat.say("go")
        assert chat.content_of(card) == PNG
        assert [chat.content_of(update, number) for number in range(2)] == [PNG + b"2", PNG + b"3"]
        assert done.text == "done"

    assert (await survives(agent, script)).kills > 10


@pytest.mark.parametrize(
    ("shows", "says"), [(Info("hello"), "cannot become"), (None, "no such card"), (Media([Image(PNG)]), "at most 100")]
)
async def test_what_cannot_be_updated_is_refused_before_anything_is_uploaded(shows: Card | None, says: str) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        card = "no card" if shows is None else (await chat.reply(shows)).id
        if isinstance(shows, Media):
            for number in range(100):
                await chat.update(card, {"items": [], "body": str(number)})
        await chat.update(card, Media([Image(PNG)]))

    chat = conversation(agent)
    with pytest.raises(BadCard, match=says):
        await chat.say("go")
    assert sent_files(chat) == isinstance(shows, Media)  # that of the card itself


async def test_words_and_files_come_in_the_order_in_which_they_were_said() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def send(chat: Chat) -> None:
        await chat.reply("one")
        await chat.reply(File(b"two", name="a.txt"))
        await chat.reply(Info("three"))
        await chat.reply("four")

    said = await conversation(agent).say("go")
    assert [one.payload["type"] for one in said] == ["text", "file", "artifact", "text"]


async def test_what_comes_goes_and_fails_is_counted_by_reason() -> None:
    agent = Agent()

    @agent.on_message("file")
    async def read(message: Message, chat: Chat) -> None:
        [file] = message.files
        with suppress(FileError):
            async for _ in file.texts():
                pass
        with suppress(FileError):
            await file.bytes(most=0)
        await chat.reply(File(b"back", name="a.txt"))

    chat = conversation(agent)
    await chat.send_file(b"12345", name="a.txt")
    await chat.send_file(b"\xff", name="a.txt")
    inward, outward = {"direction": "in"}, {"direction": "out"}
    too_large = ("worker_file_failures", 1, {**inward, "reason": "file_too_large"})
    sent = [("worker_file_bytes", 4, outward), ("worker_files", 1, outward)]
    counted = [(one.metric, one.value, one.labels) for one in chat.observations]
    assert counted == [
        *(("worker_file_bytes", 5, inward), ("worker_files", 1, inward), too_large, *sent),
        *(("worker_file_bytes", 1, inward), ("worker_file_failures", 1, {**inward, "reason": "file_not_text"})),
        *(too_large, *sent),
    ]
