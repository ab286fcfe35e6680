"""The Lua operations: each `.lua` file with the common library in front of it, and its SHA-1.

Redis keeps scripts only until it restarts: every new connection loads all of them before anything else (DESIGN rule 18).
"""

import hashlib
from importlib import resources
from typing import Self

import msgspec


class Script(msgspec.Struct, frozen=True):
    """One operation: its text as Redis loads it, and the SHA-1 by which it is called."""

    name: str
    text: bytes
    sha1: bytes


class Scripts:
    """All operations by name."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self._scripts = scripts

    @classmethod
    def load(cls) -> Self:
        """Read the package's `.lua` files."""
        folder = resources.files("bus") / "scripts"
        library = (folder / "_library.lua").read_bytes()
        scripts = {}
        for file in folder.iterdir():
            if file.name.endswith(".lua") and not file.name.startswith("_"):
                text = library + b"\n" + file.read_bytes()
                name = file.name.removesuffix(".lua")
                digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()  # Redis names scripts so
                scripts[name] = Script(name, text, digest.encode())
        return cls(scripts)

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def all(self) -> list[Script]:
        """Every operation."""
        return list(self._scripts.values())
