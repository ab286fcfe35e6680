"""Which conversations programs of this host may reach over `hashee-agent mcp`: none, unless HASHEE_MCP_CONVERSATIONS names them."""

import re
from dataclasses import dataclass
from typing import Final

from bus.settings.reader import Malformed

ALL: Final = "all"
ID: Final = re.compile(r"[!-+.-~-]{1,128}")
"""As the relay's ids (PROTOCOL §1), without the comma that stands between them."""


@dataclass(frozen=True)
class Reachable:
    """`ids`: these conversations; `is_all`: every one, also those that are begun later."""

    ids: frozenset[str] = frozenset()
    is_all: bool = False

    def __contains__(self, conversation_id: str) -> bool:
        return self.is_all or conversation_id in self.ids

    def __bool__(self) -> bool:
        return self.is_all or bool(self.ids)

    @classmethod
    def parse(cls, text: str) -> "Reachable":
        """Returns what a setting's text names. Raises Malformed."""
        names = [name.strip() for name in text.split(",")]
        if names == [ALL]:
            return cls(is_all=True)
        if ALL in names or not all(ID.fullmatch(name) for name in names):
            raise Malformed
        return cls(frozenset(names))
