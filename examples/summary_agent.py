"""Summarises a file of up to 100 MB, piece by piece, and sends the summary as a file.

Each answer of the model stands in the journal, so that a worker that dies costs none of them; the journal has 1 MiB. So there are 400 pieces at most, of
2 KB of summary each. At two seconds a piece that takes over 13 minutes: HASHEE_JOB_SECONDS=3600 lets a run take so long.
"""

from workers import LLM, Agent, Chat, File, Message

MOST_PIECES = 400

agent = Agent(llm=LLM())


@agent.on_message("file")
async def summarise(message: Message, chat: Chat, llm: LLM) -> None:
    [file], notes = message.files, []
    async with chat.progress(f"Reading {file.name}") as bar:
        async for text in file.texts(of=max(40_000, file.size // MOST_PIECES)):  # also .chunks(), .bytes(), .save(path)
            notes.append(await llm.complete(f"Summarise in a few sentences:\n{text}"))
            await bar.update(file.percent)
    await chat.reply(File("\n".join(notes), name="summary.md"))
