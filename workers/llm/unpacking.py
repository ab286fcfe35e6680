"""Unpacks a body that was compressed, though it was asked for as it is: some proxies do that with all that they send on. No IO.

Ours and not the HTTP client's: a body that cannot be unpacked ends an answer here, where it ends nothing that the client still has open, and a few bytes
that would fill the memory are not unpacked.
"""

import zlib
from typing import Final

PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
AS_IT_IS: Final = frozenset({"", "identity"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
"""As zlib finds out by the first bytes."""

MOST_AT_ONCE_BYTES: Final = 16 * 1024 * 1024
"""Of what one read of the network unpacks to; it has 64 KiB of JSON in most cases."""


MEMBER: Final = b"\x1f"
"""Begins a member of gzip; what else stands behind one is padding."""


class BadPacking(Exception):
    """A body is not packed as it says, or unpacks to more than is read at once."""


class Unpacker:
    """Of one body; `encoding`: its content-encoding. Raises BadPacking for one that is none of ours."""

    def __init__(self, encoding: str) -> None:
        said = encoding.strip().lower()
        if said not in PACKED and said not in AS_IT_IS:
            raise BadPacking
        self._inner = zlib.decompressobj(_GZIP_OR_ZLIB) if said in PACKED else None

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is missing of what was packed by now."""
        return self._inner is None or self._inner.eof

    def feed(self, data: bytes) -> bytes:
        """Returns what the data unpacks to. Raises BadPacking."""
        if self._inner is None:
            return data
        found = bytearray()
        while data:
            if self._inner.eof:  # a body may have several members, one behind the other (RFC 1952)
                if data[:1] != MEMBER:
                    break
                self._inner = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                found += self._inner.decompress(data, MOST_AT_ONCE_BYTES - len(found) + 1)
            except zlib.error:
                raise BadPacking from None
            if len(found) > MOST_AT_ONCE_BYTES:
                raise BadPacking
            data = self._inner.unused_data
        return bytes(found)
