"""The agent of the benchmark of files: reads what comes into a file, sends a file of the disk, and says how long each took."""

import json
import os
import time
from pathlib import Path

from workers import Agent, Chat, File, Message

agent = Agent()


@agent.on_message("file")
async def there_and_back(message: Message, chat: Chat) -> None:
    """Seconds of the download to its last checked byte, and of the upload to its confirmation."""
    [file] = message.files
    began = time.perf_counter()
    with Path(os.environ["BENCH_INTO"]).open("wb", buffering=0) as into:  # noqa: ASYNC230 - as the bare copy beside it
        async for chunk in file.chunks():
            into.write(chunk)
    read = time.perf_counter()
    if file.size > 1024:
        await chat.reply(File(Path(os.environ["BENCH_FILE"])))
    else:
        await chat.reply(File(b"x", name="small.bin"))
    sent = time.perf_counter()
    await chat.reply(json.dumps({"in": read - began, "out": sent - read}))
