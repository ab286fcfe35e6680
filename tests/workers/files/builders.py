"""Files, gates and uploads for tests."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from bus.files.calls import Announced, CallFailure
from crypto.files import Attachment, FileKey, FileOpener, FileSealer
from workers.files.gate import UNANSWERED, GateFailed, Given, Pieces
from workers.files.memory import MemoryGate
from workers.files.outgoing import File
from workers.files.reading import Fetch, Opening
from workers.files.spool import Spool
from workers.files.upload import Noted, Upload

CONVERSATION = "7d2b8f3e-2c1a-4f6d-9d6a-0f8e1b2c3d4e"
ENTRY = "0123456789abcdef"


def sealed(content: bytes, conversation_id: str = CONVERSATION, file_id: str = "upload-x") -> tuple[Attachment, bytes]:
    """Returns a file as a person seals it, and what its message says of it."""
    key = FileKey.generate(os.urandom)
    sealer = FileSealer(key, conversation_id, file_id)
    found = b"".join([*sealer.feed(content), sealer.finish()])
    return Attachment("file-x", file_id, key, len(content), sealer.sha256, "text/plain", "a.txt"), found


def opened(attachment: Attachment, found: bytes, conversation_id: str = CONVERSATION) -> bytes:
    """Returns a sealed file's content, as a person opens it."""
    opener = FileOpener(attachment, conversation_id)
    return b"".join([*opener.feed(found), opener.finish()])


@dataclass
class FaultyGate(MemoryGate):
    """Fails as it is told: `failures` are raised one after the other by the calls that they name; `cuts`: after so many bytes a `get` breaks off."""

    failures: list[tuple[str, GateFailed]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    offers_ranges: bool = True
    calls: list[str] = field(default_factory=list)
    asked_from: list[int] = field(default_factory=list)
    behind: bytes = b""

    def __post_init__(self) -> None:
        super().__init__()

    def fail(self, call: str, reason: str, *, times: int = 1, retry: bool = True, retry_after: float = 0.0) -> None:
        self.failures += [(call, GateFailed(reason, retry=retry, retry_after=retry_after))] * times

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if self.failures and self.failures[0][0] == call:
            raise self.failures.pop(0)[1]

    async def announce(self, conversation_id: str, size: int) -> Announced:
        self._called("announce")
        return await super().announce(conversation_id, size)

    async def put(self, announced: Announced, size: int, pieces: Pieces) -> None:
        self._called("put")
        await super().put(announced, size, pieces)

    async def confirm(self, upload_id: str, sha256: str) -> str:
        self._called("confirm")
        found = await super().confirm(upload_id, sha256)
        self._called("confirmed")
        return found

    @asynccontextmanager
    async def get(self, attachment_id: str, size: int, first_byte: int) -> AsyncIterator[Given]:
        self._called("get")
        self.asked_from.append(first_byte)
        assert size > 0
        if attachment_id not in self.files:
            raise GateFailed(CallFailure.NO_SUCH_FILE, retry=False)
        begins = first_byte if self.offers_ranges else 0
        found = self.files[attachment_id][begins:] + self.behind
        cut = self.cuts.pop(0) if self.cuts else None
        yield Given(begins, self.offers_ranges, Bitten(found if cut is None else found[:cut], is_cut=cut is not None))


class Bitten:
    """Bytes in pieces of 50,000, at the end of which the connection breaks if it `is_cut`."""

    def __init__(self, content: bytes, *, is_cut: bool = False, of: int = 50_000) -> None:
        self._content, self._is_cut, self._of, self._at = content, is_cut, of, 0

    def __aiter__(self) -> "Bitten":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._content[self._at : self._at + self._of]
        self._at += len(piece)
        if piece:
            return piece
        if self._is_cut:
            raise GateFailed(UNANSWERED, "cut")
        raise StopAsyncIteration


async def read_through(gate: MemoryGate, attachment: Attachment, conversation_id: str = CONVERSATION) -> bytes:
    """Returns a file that is read by the gate. Raises FileError."""
    found = list[bytes]()
    failure: list[Exception] = []
    async with trio.open_nursery() as nursery:
        fetch = Fetch(gate, attachment)
        nursery.start_soon(fetch.run)
        opening = Opening(fetch, attachment, conversation_id, lambda _count: None)
        try:
            while (piece := await opening.next()) is not None:
                found.append(piece)
        except Exception as error:  # noqa: BLE001 - raised again outside of the nursery
            failure.append(error)
        nursery.cancel_scope.cancel()
    if failure:
        raise failure[0]
    return b"".join(found)


@dataclass
class Uploads:
    """Uploads into one spool. `noted`: the journal."""

    folder: Path
    gate: FaultyGate = field(default_factory=FaultyGate)
    noted: list[Noted] = field(default_factory=list)
    quota_bytes: int = 1 << 30
    before_note: Callable[[Noted], None] = lambda _noted: None
    spoiled: int = 0

    @property
    def spool(self) -> Spool:
        return Spool(self.folder, self.quota_bytes)

    def upload(self, file: File) -> Upload:
        async def note(new: Noted) -> None:
            await trio.lowlevel.checkpoint()
            self.before_note(new)
            self.noted.append(msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Noted))

        def spoiled() -> None:
            self.spoiled += 1

        return Upload(self.gate, self.spool, CONVERSATION, ENTRY, file, note, spoiled)

    async def send(self, file: File) -> Noted:
        """Runs an upload as a run of a handler does, with what earlier runs have noted."""
        return await self.upload(file).to_its_end(self.noted[-1] if self.noted else None)

    @property
    def left(self) -> list[str]:
        """What is in the spool, but for the count of the day."""
        return sorted(one.name for one in self.folder.glob("*.sealed"))
