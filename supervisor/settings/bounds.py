"""How many workers there may be, as HASHEE_WORKERS says it."""

from dataclasses import dataclass
from typing import Self

MOST_WORKERS = 256


@dataclass(frozen=True)
class Bounds:
    """At least, at most; equal for a fixed number."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`N` or `MIN:MAX`. Raises ValueError."""
        first, colon, second = text.partition(":")
        least = _whole(first)
        bounds = cls(least, _whole(second) if colon else least)
        if bounds.least > bounds.most or bounds.most > MOST_WORKERS or (colon and bounds.least < 1):
            raise ValueError
        return bounds

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    def moved(self, by: int) -> "Bounds":
        """TTIN and TTOU: one more or less, never none."""
        least, most = (min(max(1, end + by), MOST_WORKERS) for end in (self.least, self.most))
        return Bounds(least, most)

    def clamp(self, count: int) -> int:
        return min(max(count, self.least), self.most)

    def __str__(self) -> str:
        return str(self.least) if self.is_fixed else f"{self.least}:{self.most}"


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError
    return int(text)
