"""What a leak test looks for, in every form in which it might stand: as it is, in hex, in base64 wherever it begins. Its own repr shows nothing."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import final

CHUNK_BYTES = 1 << 20
FORMS = ("as it is", "hex", "base64")


@final
class Needles:
    """Names and values; each value is 16 bytes at least, so that none is found by chance."""

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
        """Names and forms of all that stand in it."""
        return {self._hits[found] for found in self._pattern.findall(data)} if self._hits else set()

    def without(self, place: bytes) -> str:
        """The name of a place as it may be shown: without what is looked for."""
        shown = self._pattern.sub(b"(hidden)", place) if self._hits else place
        return shown.decode("utf-8", "backslashreplace")

    def find_in(self, chunks: Iterable[bytes]) -> set[tuple[str, str]]:
        """The same of what comes in pieces, also where one begins in one of them and ends in the next."""
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
