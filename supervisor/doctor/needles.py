"""Searches bytes for secrets in every form: as they are, in hex, and in base64 at every alignment. The repr shows nothing."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import final

CHUNK_BYTES = 1 << 20
FORMS = ("as it is", "hex", "base64")


@final
class Needles:
    """Secrets by name; each has at least 16 bytes, so that none is found by chance."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self.names = tuple(values)
        self._hits = {form: (name, kind) for name, value in values.items() for kind, form in _forms(value)}
        longest = max(map(len, self._hits), default=1)
        self._overlap = longest - 1
        # The longest first: hex of a text in lower and upper case may be one.
        self._pattern = re.compile(b"|".join(re.escape(form) for form in sorted(self._hits, key=len, reverse=True)))

    def __repr__(self) -> str:
        return f"Needles({', '.join(self.names)})"

    def find(self, data: bytes) -> set[tuple[str, str]]:
        """Returns names and forms of all that are found in `data`."""
        return {self._hits[found] for found in self._pattern.findall(data)} if self._hits else set()

    def without(self, place: bytes) -> str:
        """Returns the name of a place with the secrets in it replaced, so that it can be shown."""
        shown = self._pattern.sub(b"(hidden)", place) if self._hits else place
        return shown.decode("utf-8", "backslashreplace")

    def find_in(self, chunks: Iterable[bytes]) -> set[tuple[str, str]]:
        """Returns the same for data in pieces, also if a secret spans two of them."""
        found, rest = set[tuple[str, str]](), b""
        for chunk in chunks:
            window = rest + chunk
            found |= self.find(window)
            rest = window[-self._overlap :] if self._overlap else b""
        return found


def _forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    yield FORMS[0], value
    yield FORMS[1], value.hex().encode()
    yield FORMS[1], value.hex().upper().encode()
    for before in range(3):  # base64 of a longer text in which it begins at any place
        whole = base64.b64encode(bytes(before) + value)
        inner = whole[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        yield FORMS[2], inner
        yield FORMS[2], inner.translate(bytes.maketrans(b"+/", b"-_"))
