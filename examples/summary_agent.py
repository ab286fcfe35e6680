"""Summarises a file of up to 100 MB, piece by piece, and sends the summary as a file."""

from workers import LLM, Agent, Chat, File, Message

agent = Agent(llm=LLM())


@agent.on_message("file")
async def summarise(message: Message, chat: Chat, llm: LLM) -> None:
    [file], notes = message.files, []
    async with chat.progress(f"Reading {file.name}") as bar:
        async for text in file.texts(of=40_000):  # also .chunks(), .bytes(), .save(path)
            notes.append(await llm.complete(f"Summarise:\n{text}"))
            await bar.update(file.percent)
    await chat.reply(File("\n".join(notes), name="summary.md"))
