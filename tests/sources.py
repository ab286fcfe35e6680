"""The lines of our own code that a guard objects to."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lines_that(
    are_wrong: Callable[[str], Iterable[int]], folders: Sequence[str], *, concerned: re.Pattern[str], least: int
) -> list[str]:
    """Each as `path:line`. A file without `concerned` is not looked at; there are more than `least` files, or they were not found."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > least
    return [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        if concerned.search(text := path.read_text(encoding="utf-8"))
        for line in are_wrong(text)
    ]
