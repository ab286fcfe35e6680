"""What a supervisor and a worker process say to each other over their pipe: a small closed set of frozen messages.

One message is one line of JSON, tagged by `type`; what the other side's release adds is passed over (host/lines.py). Nothing here
carries content: ids, counts, times, names of files.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from host.lines import json_decoder

# How often a worker says that it lives.
HEARTBEAT_SECONDS = 1.0


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Ready(_Message, frozen=True, tag="ready"):
    """The worker's imports are done, its handler is loaded, Redis was reached; it takes jobs from now on.

    `files`: the owner's, from which the handler was loaded, if that was asked for.
    """

    handler: str
    pid: int
    python: str
    concurrency: int
    policies: dict[str, str] = {}
    files: tuple[str, ...] = ()


class RunningJob(msgspec.Struct, frozen=True):
    """A job that a handler works on. `started_ms`: Unix time."""

    entry_id: str
    job_id: str
    started_ms: int


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """The worker's process lives. `loop_lag_ms` is None until the event loop runs. `trouble`: what keeps it from taking jobs or from
    keeping them, by names and reasons of ours.
    """

    loop_lag_ms: float | None
    running: tuple[RunningJob, ...]
    rss_bytes: int
    jobs_done: int
    jobs_failed: int
    observations_dropped: int = 0
    trouble: str = ""


class Observation(_Message, frozen=True, tag="observation"):
    """A value for a histogram that the supervisor keeps for its workers."""

    metric: str
    labels: dict[str, str]
    value: float


class StartFailed(_Message, frozen=True, tag="start_failed"):
    """The worker cannot start and ends with exit code 78. `last_line`: of the traceback; no message was read yet."""

    kind: str
    exception: str
    file: str
    line: int
    last_line: str


class Crashed(_Message, frozen=True, tag="crashed"):
    """The worker ends for an exception of this type, raised at `file.py:12`; its text may be content and is not here."""

    exception: str
    at: str


class Stacks(_Message, frozen=True, tag="stacks"):
    """Where every thread and task stands: file, line and function, no values."""

    text: str


class Drained(_Message, frozen=True, tag="drained"):
    """Nothing runs any more; `handed_back` jobs were taken and not started. The worker exits 0."""

    handed_back: int


class Drain(_Message, frozen=True, tag="drain"):
    """Take no more jobs, finish those that run, then exit 0."""


class DumpStacks(_Message, frozen=True, tag="dump_stacks"):
    """Answer with Stacks."""


class Stop(_Message, frozen=True, tag="stop"):
    """Cancel what runs, hand it back, exit 0."""


FromWorker: TypeAlias = Ready | Heartbeat | Observation | StartFailed | Crashed | Stacks | Drained
ToWorker: TypeAlias = Drain | DumpStacks | Stop


def encode(message: FromWorker | ToWorker) -> bytes:
    """The message as one line, newline included."""
    return msgspec.json.encode(message) + b"\n"


from_worker: Callable[[bytes], FromWorker] = json_decoder(FromWorker)
to_worker: Callable[[bytes], ToWorker] = json_decoder(ToWorker)
