"""A worker's way to files, and what one run of a handler has of it.

`FileWay` is one for a worker: the gate, the spool, how many uploads run at once, the counts. `RunFiles` is one run's: its journal, its conversation,
the tasks that read, which end with the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import trio

from crypto.files import Attachment
from workers.errors import FileBroken, FileError, FilesOff
from workers.files.gate import Gate
from workers.files.limits import UPLOADS_AT_ONCE
from workers.files.outgoing import File
from workers.files.reading import Fetch, Opening
from workers.files.said import FileSaid
from workers.files.spool import Spool
from workers.files.upload import Noted, Upload, entry_of, name_of, said_of
from workers.kept.thread import LAST_NOTE_SECONDS, Step, ThreadRun

BYTES_METRIC: Final = "worker_file_bytes"
FILES_METRIC: Final = "worker_files"
FAILURES_METRIC: Final = "worker_file_failures"
SPOILED: Final = "spool_spoiled"
"""Counts as a failure of a file that is sent all the same: what an earlier run had sealed was no longer what it had noted."""
NO_GATE: Final = (
    "this worker has no file gate: set HASHEE_FILES_URL to one (docs/settings.md), or start it by `hashee-agent up`"
)

Count = Callable[[str, float, Mapping[str, str]], None]
"""Counts something of files: the metric's name, how much, its labels."""


def count_nothing(_metric: str, _value: float, _labels: Mapping[str, str]) -> None:
    """Counts nothing; for a worker without a supervisor."""


@dataclass(frozen=True, eq=False)
class FileWay:
    """A worker's way to files. `gate` None: it has none, and says so where somebody needs one."""

    gate: Gate | None
    spool: Spool
    count: Count = count_nothing
    uploads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(UPLOADS_AT_ONCE))

    def for_run(self, thread: ThreadRun, helpers: trio.Nursery, check_open: Callable[[], None]) -> "RunFiles":
        """Returns what a run has of it. `helpers`: for its tasks; `check_open` raises once the run has ended."""
        return RunFiles(self, thread, helpers, check_open)


def _noted() -> Noted:  # type: ignore[empty-body]
    """By what it returns the journal knows what is noted."""


@dataclass(frozen=True, eq=False)
class RunFiles:
    """What one run has of files."""

    way: FileWay
    thread: ThreadRun
    helpers: trio.Nursery
    check_open: Callable[[], None]

    @property
    def conversation_id(self) -> str:
        """Returns the conversation of the run."""
        return self.thread.job.conversation_id

    def open(self, attachment: Attachment, delivered: Callable[[int], None]) -> "Opening":
        """Begins to read a file of the run's conversation. Raises FilesOff, ChatClosed."""
        self.check_open()
        if self.way.gate is None:
            raise FilesOff(NO_GATE)
        fetch = Fetch(self.way.gate, attachment)
        self.helpers.start_soon(fetch.run)

        def counted(count: int) -> None:
            self.way.count(BYTES_METRIC, count, {"direction": "in"})
            delivered(count)

        return Opening(fetch, attachment, self.conversation_id, counted)

    def ended(self, direction: str, error: BaseException | None = None) -> None:
        """Counts a file that came whole, was sent, or failed."""
        if error is None:
            self.way.count(FILES_METRIC, 1, {"direction": direction})
        elif isinstance(error, FileError):
            reason = f"{error.reason}_{error.why}" if isinstance(error, FileBroken) else error.reason
            self.way.count(FAILURES_METRIC, 1, {"direction": direction, "reason": reason})

    async def send(self, files: Sequence[File], conversation_id: str, place: str) -> list[FileSaid]:
        """Uploads files for a place of the job, one after the other; returns how a payload says them. What an earlier run has uploaded is not
        uploaded again. Raises FileError.
        """
        return [await self._send(file, conversation_id, place, number) for number, file in enumerate(files)]

    async def _send(self, file: File, conversation_id: str, place: str, number: int) -> FileSaid:
        self.check_open()
        entry = entry_of(conversation_id, place, number)
        name = name_of(entry)
        kept = self.thread.entry(name)
        noted = None if kept is None else cast("Noted", Step(name, kept).result(_noted))
        if noted is not None and noted.attachment_id:
            return said_of(noted, file)
        if self.way.gate is None:
            off = FilesOff(NO_GATE)
            self.ended("out", off)
            raise off

        async def note(new: Noted) -> None:
            """Notes it also where the run is cancelled meanwhile: else the next one would do it again."""
            with trio.move_on_after(LAST_NOTE_SECONDS, shield=True):
                await self.thread.keep(Step(name, None), _noted, new, once=False)
                return
            await trio.lowlevel.checkpoint_if_cancelled()
            await self.thread.keep(Step(name, None), _noted, new, once=False)

        def spoiled() -> None:
            self.way.count(FAILURES_METRIC, 1, {"direction": "out", "reason": SPOILED})

        upload = Upload(self.way.gate, self.way.spool, conversation_id, entry, file, note, spoiled)
        try:
            with self.thread.stepping():
                async with self.way.uploads:
                    done = await upload.to_its_end(noted)
        except FileError as error:
            self.ended("out", error)
            raise
        self.way.count(BYTES_METRIC, done.size, {"direction": "out"})
        self.ended("out")
        return said_of(done, file)


__all__ = ["FileWay", "RunFiles", "count_nothing"]
