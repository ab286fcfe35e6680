"""Lines over a byte stream, bounded: what the keeper's link and the control socket are both made of."""

LINE_LIMIT_BYTES = 1 << 20  # the status of 256 workers with their last lines of stderr


class LineTooLong(Exception):
    """The other side sent more than LINE_LIMIT_BYTES without ending the line."""


class Lines:
    """Takes bytes as they come and gives whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT_BYTES:
            raise LineTooLong
        return [line for line in lines if line]
