"""Shows what a handler raised, with its traceback, to whoever tries it: from the agent's log, while it grows.

Only the sandbox has these in its log (HASHEE_SHOW_ERRORS): they may quote the conversation, and here that is one's own.
"""

from collections.abc import Mapping
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


async def show_handler_errors(log_path: Path, console: Console) -> None:
    """Prints each one that the log gets from now on, until cancelled."""
    with log_path.open("rb") as log:
        log.seek(0, 2)
        pending = b""
        while True:
            *lines, pending = (pending + log.read(MOST_BYTES)).split(b"\n")
            for line in lines:
                if text := _shown(line):
                    console.print(Text(text, style="red"))
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
