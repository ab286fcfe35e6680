"""What chats on a terminal have in common of what is typed: how long a time is, and which words end them."""

import re
from typing import Final

QUIT: Final = frozenset({"/quit", "/exit"})
SAID_ALL_THE_SAME: Final = "//"
"""Begins a line that looks like a command of the chat's and is for the agent."""

DURATION: Final = re.compile(r"\+?(\d{1,9})\s*([smhd])")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_in(text: str) -> int | None:
    """Returns the seconds of a time such as `+10m`; None for what is none."""
    found = DURATION.fullmatch(text)
    return None if found is None else int(found[1]) * SECONDS[found[2]]


def without_mark(line: str) -> str:
    """Returns what is said by a line that is for the agent: of `//state` this is `/state`."""
    return line[1:] if line.startswith(SAID_ALL_THE_SAME) else line
