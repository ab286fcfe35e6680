"""Files in the chat on the terminal: `/file PATH` sends one, and what comes is saved, in bounds, where nobody else looks. It says where."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from crypto.errors import Unreadable
from crypto.files import MAX_FILE_BYTES
from sandbox.api import ApiRefused
from sandbox.files import HeardFile
from sandbox.people import NO_CONNECTION, Person

COMMAND = "/file"
MOST_FILES = 100
MOST_BYTES = 1 << 30
"""What one chat saves at most: an agent may send without end."""


class ChatFiles:
    """`say` shows a line. What came is kept when the chat ends; a folder is made for the first of it."""

    def __init__(self, person: Person, conversation_id: str, say: Callable[[str], None]) -> None:
        self._person = person
        self._conversation_id = conversation_id
        self._say = say
        self._folder: Path | None = None
        self._seen = 0
        self._files = 0
        self._bytes = 0

    async def send(self, words: str) -> None:
        """Sends the file that stands behind `/file`, or says why not."""
        path = _path_of(words)
        try:
            size = path.stat().st_size
            if not path.is_file():
                self._say(f"{path} is no file; type {COMMAND} PATH")
            elif size > MAX_FILE_BYTES:
                self._say(f"{path} has {size:,} bytes; a file has at most 100 MB")
            else:
                await self._person.send_file(self._conversation_id, path)
                self._say(f"sent {path.name}, {size:,} bytes")
        except (OSError, ValueError) as problem:
            self._say(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}")
        except (ApiRefused, *NO_CONNECTION) as problem:
            self._say(f"{path.name} was not sent: {problem}")

    async def answer(self, card_id: str, said: dict[str, object], paths: Mapping[str, Path]) -> None:
        """Answers a card, a form's files with it; or says why not."""
        person, where = self._person, self._conversation_id
        try:
            files = {name: await person.attach(where, path) for name, path in paths.items()}
        except (OSError, ValueError) as problem:
            self._say(f"not answered, a file cannot be read: {getattr(problem, 'strerror', None) or problem}")
            return
        except (ApiRefused, *NO_CONNECTION) as problem:
            self._say(f"not answered, a file was not sent: {problem}")
            return
        if files:
            named = {name: file.attachment_id for name, file in files.items()}
            said = {**said, "values": {**cast("dict[str, object]", said["values"]), **named}}
        await person.answer(where, card_id, said, files=list(files.values()))

    async def run(self) -> None:
        """Saves what comes, one after the other, until cancelled."""
        while True:
            await self._person.transcript.until(lambda: len(self._person.files) > self._seen)
            self._seen += 1
            heard = self._person.files[self._seen - 1]
            if heard.conversation_id == self._conversation_id:
                await self._save(heard)

    async def _save(self, heard: HeardFile) -> None:
        if self._files >= MOST_FILES or self._bytes + heard.attachment.size > MOST_BYTES:
            self._say(f"{heard.name} is not saved: this chat has saved as much as it may")
            return
        try:
            path = await self._person.save_file(heard, self._place(heard.attachment.size))
        except OSError as problem:
            self._say(f"{heard.name} cannot be saved: {problem.strerror}")
        except (Unreadable, ApiRefused, *NO_CONNECTION) as problem:
            self._say(f"{heard.name} cannot be read: {problem}")
        else:
            self._files += 1
            self._bytes += heard.attachment.size
            self._say(f"saved {path}")

    def _place(self, size: int) -> Path:
        """Returns the folder; it has room for so many bytes. Raises OSError."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hashee-files-"))  # mode 0700
        if shutil.disk_usage(self._folder).free < 2 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._folder


def _path_of(words: str) -> Path:
    return Path(words.removeprefix(COMMAND).strip().strip("'\"")).expanduser()
