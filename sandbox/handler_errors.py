"""Shows what a handler raised, with its traceback, to whoever tries it, and to its author what it prints and how it is reloaded: from the
agent's log, while it grows.

Only the sandbox has these in its log (HASHEE_SHOW_ERRORS): they may quote the conversation, and here that is one's own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio
from rich.console import Console
from rich.text import Text

SETTINGS: Mapping[str, str] = {"HASHEE_SHOW_ERRORS": "on", "HASHEE_LOG_FORMAT": "json"}
"""What the agent is told, so that its log has them, in a form that can be read."""

LOOK_SECONDS = 0.1
MOST_BYTES = 256 * 1024


class _Line(msgspec.Struct):
    event: str = ""
    traceback: str = ""
    ends: str = ""


PASSED_OVER = frozenset(
    {"event", "level", "timestamp", "pid", "process", "role", "worker", "agent_id", "traceback", "remedy"}
)
"""Of a line that an author sees: what says nothing of their code."""


async def show_handler_errors(
    log_path: Path, console: Console, *, is_author: bool = False, behind: Callable[[], None] = lambda: None
) -> None:
    """Prints each one that the log gets from now on, until cancelled; to an author more than errors. `behind` is called after each look that found one."""
    shown: Callable[[bytes], str] = _shown_to_author if is_author else _shown
    with log_path.open("rb") as log:
        log.seek(0, 2)
        pending = b""
        while True:
            *lines, pending = (pending + log.read(MOST_BYTES)).split(b"\n")
            texts = [text for line in lines if (text := shown(line))]
            for text in texts:
                console.file.write("\r")
                console.print(Text(text, style="red"))
            if texts:
                behind()
            if not lines:
                await trio.sleep(LOOK_SECONDS)
            else:
                await trio.lowlevel.checkpoint()


def _shown(line: bytes) -> str:
    """Returns what a line of the log tells of a handler's error; '' for any other line."""
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:
        return ""
    return f"{read.traceback}\n({read.event}; {read.ends})" if read.traceback else ""


def _shown_to_author(line: bytes) -> str:
    """Returns what a line of the log tells of a handler's code: its errors, its own output, how it is reloaded; '' for any other line."""
    try:
        read = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.DecodeError:
        said = line.decode(errors="replace").strip()
        return f"handler | {said}" if said else ""
    if read.get("traceback"):
        return _shown(line)
    event = str(read.get("event", ""))
    if read.get("level") not in ("error", "critical") and not event.startswith("reload:"):
        return ""
    more = " ".join(f"{name}={value}" for name, value in read.items() if name not in PASSED_OVER)
    return f"agent | {event} {more}".rstrip()
