"""The agent of the benchmark of files: reads what comes, sends a file of the disk, and says how long each took."""

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
    async for _ in file.chunks():
        pass
    read = time.perf_counter()
    if file.size > 1024:
        await chat.reply(File(Path(os.environ["BENCH_FILE"])))
    else:
        await chat.reply(File(b"x", name="small.bin"))
    sent = time.perf_counter()
    await chat.reply(json.dumps({"in": read - began, "out": sent - read}))
