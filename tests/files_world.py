"""What tests of files through the whole house share: what a person sends and hears, and what lies on the disk meanwhile."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import waiting_for
from tests.world import World

HANDLER = "tests.handlers:filing"
SECONDS = 120.0
NEEDLE = b"this stands in the clear nowhere on the disk; "


def content_of(size: int, seed: int) -> bytes:
    """Content that a search finds wherever it lies in the clear."""
    begins = b"%d %b" % (seed, NEEDLE)
    return (begins * (size // len(begins) + 1))[:size]


async def comes_back(it: World, content: bytes, name: str, seconds: float = SECONDS) -> None:
    """A person sends a file and hears it once and whole, and its hash."""
    [person] = it.people
    conversation = it.conversations[person]
    before, files_before = len(person.transcript.heard(conversation)), len(person.files)
    await person.send_file(conversation, content, name=name)
    digest = hashlib.sha256(content).hexdigest()
    with waiting_for(f"{name} to come back", seconds):
        await person.transcript.until(lambda: digest in person.transcript.heard(conversation)[before:])
    heard = person.transcript.heard(conversation)[before:]
    assert len(heard) == 2, heard
    assert heard[1] == digest, f"the hash stands before its file: {heard}"
    [file] = person.files[files_before:]
    assert file.name == f"back-{name}", f"it is called {file.name}"
    assert await person.read_file(file) == content, "it came back with another content"


def spooled(state_dir: Path) -> list[str]:
    """What waits in the spool."""
    folder = state_dir / "spool"
    return sorted(one.name for one in folder.glob("*.sealed")) if folder.is_dir() else []


def leaks(folder: Path, needles: tuple[bytes, ...]) -> Iterator[str]:
    """Where any of the needles lies in the clear below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found = path.read_bytes()
            yield from (f"{path.name}: {needle[:20]!r}" for needle in needles if needle in found)
