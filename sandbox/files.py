"""Files as a person's device sends and reads them: sealed while they are read, opened while they are written, in bounded memory.

What the agent calls a file is never a path here: `safe_name` makes a name of it that is one in a folder of ours.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec
import trio

from crypto.errors import Unreadable
from crypto.files import Attachment, FileKey, FileOpener, FileSealer, sealed_size
from sandbox.api import RelayApi

READ_BYTES = 256 * 1024
MOST_NAME_CHARACTERS = 80
FILE_KINDS = ("file", "image", "video", "audio")
MOST_FILES_OF_A_NAME = 1000


@dataclass(frozen=True)
class HeardFile:
    """A file that the agent has sent. `payload`: what it stands in."""

    conversation_id: str
    attachment: Attachment
    payload: dict[str, object]

    @property
    def name(self) -> str:
        """What the agent calls it, as a name that can be shown and saved under."""
        return safe_name(self.attachment.filename)


class _Announced(msgspec.Struct, frozen=True):
    upload_id: str
    upload_url: str


class _Confirmed(msgspec.Struct, frozen=True):
    attachment_id: str


def files_of(conversation_id: str, payload: dict[str, object]) -> list[HeardFile]:
    """Returns the files that stand in a payload; one that cannot be read is left out."""
    entries, found = payload.get("attachments"), list[HeardFile]()
    for entry in entries if isinstance(entries, list) else []:
        try:
            found.append(HeardFile(conversation_id, Attachment.from_payload(entry), payload))
        except Unreadable:
            continue
    return found


def safe_name(name: str) -> str:
    """Returns the name without what could lead elsewhere, reads otherwise than it is, or hides it: never empty, never a path."""
    kept = "".join(one if one.isprintable() and one not in "/\\:" else "_" for one in name)[-MOST_NAME_CHARACTERS:]
    return kept.strip(". ") or "file"


def file_line(name: str, size: int) -> str:
    """Returns how a file is shown among texts."""
    return f"[file] {safe_name(name)}, {size:,} bytes"


async def upload(api: RelayApi, conversation_id: str, source: IO[bytes], *, filename: str, mime: str) -> Attachment:
    """Seals and uploads what `source` holds from where it stands. Returns what a payload says of it. Raises `ApiRefused`, httpx2's errors."""
    size = os.fstat(source.fileno()).st_size - source.tell()
    body = {"filename": "file", "content_type": "application/octet-stream", "size": sealed_size(size)}
    announced = await api.call("POST", "/users/me/files", _Announced, {**body, "conversation_id": conversation_id})
    key = FileKey.generate(os.urandom)
    with TemporaryFile() as sealed:
        sealer = FileSealer(key, conversation_id, announced.upload_id)
        while piece := source.read(READ_BYTES):
            for chunk in sealer.feed(piece):
                sealed.write(chunk)
            await trio.lowlevel.checkpoint()
        sealed.write(sealer.finish())
        sealed.seek(0)
        await api.put(f"/users/me/files/{announced.upload_id}/upload", sealed, sealed_size(size))
    confirmed = await api.call(
        "POST", "/files/confirm", _Confirmed, {"upload_id": announced.upload_id, "sha256": sealer.sha256}
    )
    return Attachment(confirmed.attachment_id, announced.upload_id, key, size, sealer.sha256, mime, filename)


async def download(api: RelayApi, heard: HeardFile, into: IO[bytes]) -> None:
    """Opens a file of the agent's into `into`; it is whole, and as it was sent, when this returns.

    Raises Unreadable, `ApiRefused`, httpx2's errors.
    """
    opener = FileOpener(heard.attachment, heard.conversation_id)
    async with api.fetch(f"/files/{heard.attachment.attachment_id}") as pieces:
        async for piece in pieces:
            for chunk in opener.feed(piece):
                into.write(chunk)
    into.write(opener.finish())


def free_path(folder: Path, name: str) -> Path:
    """Returns a path in the folder under this name, or one like it where that is taken. Raises FileExistsError after very many."""
    for candidate in _candidates(safe_name(name)):
        path = folder / candidate
        if not os.path.lexists(path):
            return path
    raise FileExistsError(f"{folder} has too many files called {name}")


def _candidates(name: str) -> Iterator[str]:
    yield name
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    for number in range(2, MOST_FILES_OF_A_NAME):
        yield f"{stem} ({number}){dot}{suffix}"
