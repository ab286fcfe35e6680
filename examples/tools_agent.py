"""The model looks things up by itself, and asks before it deletes. OPENAI_BASE_URL and HASHEE_LLM_MODEL say which model, FILES_FOLDER where."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from workers import LLM, Agent


@asynccontextmanager
async def lifespan() -> AsyncIterator[Path]:
    yield Path(os.environ["FILES_FOLDER"])


agent = Agent(llm=LLM("You look after a folder."), lifespan=lifespan)


@agent.tool
async def weather(city: Annotated[str, Meta(description="Where")]) -> str:
    """Says how the weather is."""
    return f"21 degrees and sunny in {city}"


@agent.tool(sensitivity="high")  # an approval card first; runs at most once
def delete_files(pattern: str, folder: Path) -> int:
    """Deletes the files of the folder that match a pattern such as *.tmp, and says how many there were."""
    found = [file for file in folder.iterdir() if file.match(pattern)]
    for file in found:
        file.unlink()
    return len(found)


@agent.on_message("text")
async def answer(llm: LLM) -> None:
    await llm.reply()
