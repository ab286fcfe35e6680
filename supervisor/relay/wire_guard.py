"""What a peer may send over a WebSocket, judged by the heads of its frames as their bytes come and before anything is made of them.

The library bounds a message by its characters alone. Here stand the bounds that it has not: bytes, fragments, control frames, the
answer to the upgrade, and how much may lie unread. Pure: bytes and times in, `WireRefused` out. RFC 6455 §5.2 has the heads.
"""

from collections import deque
from typing import Final

UPGRADE_BYTES: Final = 64 * 1024
"""Head and body of the answer to the upgrade. The library keeps the body of a refusal, however long it is."""

FREE_FRAGMENTS: Final = 64
FRAGMENT_BYTES: Final = 256
"""A message may come in FREE_FRAGMENTS, and in one more for each FRAGMENT_BYTES of it. Empty ones cost work and bring nothing."""

CONTROL_FRAMES: Final = 100
CONTROL_FRAMES_PER_SECOND: Final = 10.0
"""Pings and pongs at once and in the long run; the relay pings every 30 s (PROTOCOL §2). Each ping has us send."""

MOST_UNREAD_BYTES: Final = 2 * 1024 * 1024
"""Whole messages that nobody has received yet. Beyond them nothing is read, so that the peer waits. As
much as the largest message; with one wide character in it each byte takes four."""

PROGRESS_BYTES: Final = 16 * 1024
"""So much of a frame counts as hearing from the peer; a byte now and then does not."""

TOO_BIG: Final = 1009
POLICY_VIOLATION: Final = 1008

_FIN, _CONTROL, _MASKED, _SIZE = 0x80, 0x08, 0x80, 0x7F
_SIZE_BYTES: Final = {126: 2, 127: 8}
_MASK_BYTES: Final = 4
_HEAD_END: Final = b"\r\n\r\n"
_SWITCHING: Final = b"HTTP/1.1 101"


class WireRefused(Exception):
    """Raised when the peer sends what it may not. `code` and `reason` are for our close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class WireGuard:
    """Judges the bytes of one connection."""

    def __init__(self, most_message_bytes: int, now: float) -> None:
        self._most_message_bytes = most_message_bytes
        self._upgrade_bytes = 0
        self._upgrade = bytearray()
        self._is_upgraded = False
        self._head = b""
        self._left = 0
        self._message_bytes = 0
        self._fragments = 0
        self._unread: deque[int] = deque()
        self._controls = float(CONTROL_FRAMES)
        self._controls_at = now
        self._progress = 0
        self.unread_bytes = 0
        """How many bytes of whole messages nobody has received yet."""
        self.heard_at = now
        """When the last frame ended, or a large one went on."""

    def feed(self, data: bytes | bytearray, now: float) -> None:
        """Judges what came. Raises WireRefused."""
        if not self._is_upgraded:
            data = self._read_upgrade(bytes(data), now)
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                at = self._read_payload(at, end, now)
                continue
            size, behind = _head(data, at)
            if behind > end:
                self._head = bytes(data[at:])
                return
            self._judge(data[at], size, now)
            at = behind

    def taken(self) -> None:
        """Notes that the oldest whole message was received."""
        if self._unread:
            self.unread_bytes -= self._unread.popleft()

    def _read_upgrade(self, data: bytes, now: float) -> bytes:
        """Returns what of this stands behind the answer that switches protocols. Raises WireRefused for an answer that is too long."""
        self.heard_at = now
        self._upgrade_bytes += len(data)
        self._upgrade += data
        head, end, behind = bytes(self._upgrade).partition(_HEAD_END)
        if end and head.startswith(_SWITCHING):
            self._is_upgraded = True
            self._upgrade.clear()
            return behind
        if self._upgrade_bytes > UPGRADE_BYTES:
            raise WireRefused(TOO_BIG, f"an answer to the upgrade over {UPGRADE_BYTES} bytes")
        return b""

    def _read_payload(self, at: int, end: int, now: float) -> int:
        step = min(self._left, end - at)
        self._left -= step
        self._progress += step
        if not self._left or self._progress >= PROGRESS_BYTES:
            self.heard_at, self._progress = now, 0
        return at + step

    def _judge(self, first: int, size: int, now: float) -> None:
        """Judges a frame by its first byte and its size, as it begins. Raises WireRefused."""
        self._left, self._progress = size, 0
        if not size:
            self.heard_at = now
        if first & _CONTROL:
            self._count_control(now)
            return
        self._message_bytes += size
        self._fragments += 1
        if self._message_bytes > self._most_message_bytes:
            raise WireRefused(TOO_BIG, f"a message over {self._most_message_bytes} bytes")
        if self._fragments > FREE_FRAGMENTS + self._message_bytes // FRAGMENT_BYTES:
            raise WireRefused(POLICY_VIOLATION, "a message in too many fragments")
        if first & _FIN:
            self._unread.append(self._message_bytes)
            self.unread_bytes += self._message_bytes
            self._message_bytes = self._fragments = 0

    def _count_control(self, now: float) -> None:
        refilled = self._controls + (now - self._controls_at) * CONTROL_FRAMES_PER_SECOND
        self._controls, self._controls_at = min(refilled, CONTROL_FRAMES) - 1, now
        if self._controls < 0:
            raise WireRefused(POLICY_VIOLATION, "too many pings and pongs")


def _head(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Returns the size of the payload that the frame's head announces, and where the head ends: behind all data where it is not whole."""
    behind = at + 2
    if behind > len(data):
        return 0, behind
    second = data[at + 1]
    size = second & _SIZE
    if size in _SIZE_BYTES:
        long, behind = behind, behind + _SIZE_BYTES[size]
        size = int.from_bytes(data[long:behind], "big")
    return size, behind + _MASK_BYTES if second & _MASKED else behind
