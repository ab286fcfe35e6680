"""Why something could not be read (crypto §3.1)."""


class Unreadable(Exception):
    """`reason` is one word of the closed set."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
