"""The messages that a supervisor and a worker process send each other over their pipe.

One message is one line of JSON, tagged by `type`; what a newer release adds is passed over (host/lines.py). None carries content of a
conversation: only ids, counts, times and names of files.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from host.lines import json_decoder

# How often a worker sends its Heartbeat.
HEARTBEAT_SECONDS = 1.0


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Ready(_Message, frozen=True, tag="ready"):
    """The worker has loaded its handler and reached Redis, and takes jobs from now on.

    `files`: the owner's files that the handler was loaded from, if that was asked for.
    """

    handler: str
    pid: int
    python: str
    concurrency: int
    policies: dict[str, str] = {}
    files: tuple[str, ...] = ()


class RunningJob(msgspec.Struct, frozen=True):
    """A job whose handler runs. `started_ms`: Unix time."""

    entry_id: str
    job_id: str
    started_ms: int


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """The worker's process lives. `loop_lag_ms` is None until the event loop runs. `trouble`: why it cannot take jobs or renew their
    leases, in names and reasons of ours.
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
    """The worker cannot start and ends with exit code 78. `last_line`: of the traceback, which can quote no message yet."""

    kind: str
    exception: str
    file: str
    line: int
    last_line: str


class Crashed(_Message, frozen=True, tag="crashed"):
    """The worker ends by an exception of this type, raised at `file.py:12`. Its text is left out, since it may quote content."""

    exception: str
    at: str


class Stacks(_Message, frozen=True, tag="stacks"):
    """The stacks of all threads and tasks: file, line and function, no values."""

    text: str


class Drained(_Message, frozen=True, tag="drained"):
    """No job runs any more and the worker exits 0; `handed_back` jobs had been taken and not started."""

    handed_back: int


class Drain(_Message, frozen=True, tag="drain"):
    """Tells the worker to take no more jobs, finish those that run, then exit 0."""


class DumpStacks(_Message, frozen=True, tag="dump_stacks"):
    """Tells the worker to answer with Stacks."""


class Stop(_Message, frozen=True, tag="stop"):
    """Tells the worker to cancel what runs, hand it back and exit 0."""


FromWorker: TypeAlias = Ready | Heartbeat | Observation | StartFailed | Crashed | Stacks | Drained
ToWorker: TypeAlias = Drain | DumpStacks | Stop


def encode(message: FromWorker | ToWorker) -> bytes:
    """Returns the message as one line, newline included."""
    return msgspec.json.encode(message) + b"\n"


from_worker: Callable[[bytes], FromWorker] = json_decoder(FromWorker)
to_worker: Callable[[bytes], ToWorker] = json_decoder(ToWorker)
