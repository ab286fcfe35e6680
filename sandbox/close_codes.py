"""Reads close codes out of a WebSocket's bytes as they pass: frame headers only, never a payload but a close frame's.

Fed whatever chunks the network makes, it keeps at most one unfinished header. Bytes that are no WebSocket end the reading.
"""

MAX_HTTP_HEAD_BYTES = 64 * 1024
CLOSE_OPCODE = 0x8


class CloseCodeReader:
    """One direction of one connection, from its first byte (the HTTP head included)."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self._in_head = True
        self._given_up = False
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Appends to `codes` for each close frame in `data`; None for one without a code."""
        if self._given_up:
            return
        self._buffer += data
        if self._in_head and not self._past_head():
            return
        while self._frame():
            pass

    def _past_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._given_up = len(self._buffer) > MAX_HTTP_HEAD_BYTES
            return False
        head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        self._in_head = False
        if b"websocket" not in head:
            self._given_up = True
            self._buffer.clear()
        return not self._given_up

    def _frame(self) -> bool:
        """Passes over one frame; False when more bytes are needed."""
        if self._skip:
            passed = min(self._skip, len(self._buffer))
            del self._buffer[:passed]
            self._skip -= passed
        if self._skip or len(self._buffer) < 2:
            return False
        header, size, mask = self._header()
        if header is None:
            return False
        if self._buffer[0] & 0x0F != CLOSE_OPCODE:
            del self._buffer[:header]
            self._skip = size
            return True
        if len(self._buffer) < header + size:
            return False
        body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._buffer[header : header + size]))
        self.codes.append(int.from_bytes(body[:2], "big") if len(body) >= 2 else None)
        del self._buffer[: header + size]
        return True

    def _header(self) -> tuple[int | None, int, bytes]:
        """Length of the header (None: not all there), of the payload, and the mask."""
        masked, size = bool(self._buffer[1] & 0x80), self._buffer[1] & 0x7F
        extended = {126: 2, 127: 8}.get(size, 0)
        header = 2 + extended + (4 if masked else 0)
        if len(self._buffer) < header:
            return None, 0, b""
        if extended:
            size = int.from_bytes(self._buffer[2 : 2 + extended], "big")
        mask = bytes(self._buffer[header - 4 : header]) if masked else bytes(4)
        return header, size, mask
