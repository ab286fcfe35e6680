"""The Lua operations: each `.lua` file with what it uses of the common library in front of it, and its SHA-1.

Redis keeps scripts only until it restarts: every new connection loads all of them before anything else (DESIGN rule 18).
"""

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Self

import msgspec

_BOARD = re.compile(r"^-- BOARD (.*)$", re.MULTILINE)
_FUNCTION = re.compile(r"^(local function (\w+)\(.*?^end\n)", re.MULTILINE | re.DOTALL)


class Script(msgspec.Struct, frozen=True):
    """One operation: its text as Redis loads it, and the SHA-1 by which it is called.

    `board`: which keys of the board (bus/keys.py) it uses; none for an operation that is not about a conversation.
    """

    name: str
    text: bytes
    sha1: bytes
    board: tuple[int, ...] = ()
    board_size: int = 0

    def keys(self, given: Sequence[str]) -> Sequence[str]:
        """Of the whole board and the operation's own keys behind it, those that it is called with."""
        if not self.board:
            return given
        return [*[given[place] for place in self.board], *given[self.board_size :]]


class Scripts:
    """All operations by name."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self._scripts = scripts

    @classmethod
    def load(cls) -> Self:
        """Read the package's `.lua` files."""
        folder = resources.files("bus") / "scripts"
        library = (folder / "_library.lua").read_text()
        scripts = {}
        for file in folder.iterdir():
            if file.name.endswith(".lua") and not file.name.startswith("_"):
                body = file.read_text()
                name = file.name.removesuffix(".lua")
                scripts[name] = _made(name, library, body)
        return cls(scripts)

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def all(self) -> list[Script]:
        """Every operation."""
        return list(self._scripts.values())


def _made(name: str, library: str, body: str) -> Script:
    names = [one for line in _BOARD.findall(library) for one in line.split()]
    operation = f"{_used_of(library, body)}\n{body}"
    code = re.sub(r"--.*", "", operation)
    board = [place for place, one in enumerate(names) if re.search(rf"\b{one}\b", code)]
    lines = [f"local {names[place]} = KEYS[{number}]" for number, place in enumerate(board, start=1)]
    text = "\n".join([*lines, f"local OWN = {len(board) + 1}", operation]).encode()
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()  # Redis names scripts so
    return Script(name, text, digest.encode(), tuple(board), len(names))


def _used_of(library: str, body: str) -> str:
    """The library without the functions that this operation does not use: Lua makes all of them anew at every call.

    A function uses only those above it, so from the last to the first it is known what is used.
    """
    pieces = _FUNCTION.split(library)  # text, function, its name, text, function, its name, …, text
    kept, used = [pieces[-1]], body
    for place in range(len(pieces) - 2, 0, -3):
        text, function, name = pieces[place - 2 : place + 1]
        if re.search(rf"\b{name}\b", used):
            kept.append(function)
            used += function
        kept.append(text)
    return "".join(reversed(kept))
