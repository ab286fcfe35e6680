"""From where children are started: the interpreter and the working directory, found through the path that this program was started with.

Releases are installed beside each other, and a link says which one counts: `current/venv/bin/hashee-agent up`, or in `current` a
`hashee-agent up`. The kernel and the first line of a script know only where the link led at the start; the way through the link stands
in argv[0] and in $PWD. A process runs from the place to which the way led when it was started, as a whole: the way is looked at anew
where new code is wanted (an upgrade, a reload), or when the place is gone.
"""

import errno
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WAY_PYTHON = "HASHEE_WAY_PYTHON"
WAY_DIRECTORY = "HASHEE_WAY_DIRECTORY"
"""How a keeper tells its supervisors the way. Not for people."""

MOST_LINKS = 40  # as many as the kernel follows


class CodeGone(OSError):
    """Where the code should be is nothing; the text names the path, and the link in it that leads nowhere."""

    def __init__(self, path: Path) -> None:
        text = f"{path} is not there"
        dangling = next((step for step in _from_the_root(path) if step.is_symlink() and not step.exists()), None)
        if dangling is not None:
            text += f": {dangling} points at {dangling.readlink()}, where nothing is"
        super().__init__(errno.ENOENT, text)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class CodePlace:
    """An interpreter, and a working directory; None for that of the parent, whatever it is."""

    python: Path
    directory: Path | None

    @classmethod
    def of_this_process(cls) -> "CodePlace":
        return cls(Path(sys.executable), _working_directory())

    @property
    def is_there(self) -> bool:
        return os.access(self.python, os.X_OK) and (self.directory is None or self.directory.is_dir())


@dataclass(frozen=True)
class ProgramPath:
    """The same two as they were given, with their links."""

    python: Path
    directory: Path | None

    def look(self) -> CodePlace:
        """Where it leads now. Raises CodeGone."""
        # The interpreter's own link stays: beside it stands of which environment it is.
        found = CodePlace(
            self.python.parent.resolve() / self.python.name,
            None if self.directory is None else self.directory.resolve(),
        )
        if not os.access(found.python, os.X_OK):
            raise CodeGone(self.python)
        if self.directory is not None and not found.is_there:
            raise CodeGone(self.directory)
        return found

    def note(self, environ: MutableMapping[str, str]) -> None:
        """For `way_of_this_process` in a child, or later in this one."""
        environ[WAY_PYTHON] = str(self.python)
        if self.directory is not None:
            environ[WAY_DIRECTORY] = str(self.directory)


class Code:
    """Which place is in use, of those to which a way may lead."""

    def __init__(self, way: ProgramPath, place: CodePlace) -> None:
        self.way = way
        self._place = place

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str]) -> "Code":
        return cls(way_of_this_process(environ), CodePlace.of_this_process())

    def in_use(self) -> CodePlace:
        """From where what runs was started; if that is gone, where the way leads now. Raises CodeGone."""
        if not self._place.is_there:
            self._place = self.way.look()
        return self._place

    def use(self, place: CodePlace) -> None:
        """From now on this one."""
        self._place = place


def way_of_this_process(environ: Mapping[str, str]) -> ProgramPath:
    """As the keeper noted it, else as this process was started itself."""
    if python := environ.get(WAY_PYTHON):
        directory = environ.get(WAY_DIRECTORY)
        return ProgramPath(Path(python), None if directory is None else Path(directory))
    return way_of(
        python=Path(sys.executable),
        is_environment=sys.prefix != sys.base_prefix,
        called=[sys.orig_argv[0], sys.argv[0]],
        directory=_working_directory(),
        logical=environ.get("PWD"),
    )


def way_of(
    *, python: Path, is_environment: bool, called: Sequence[str], directory: Path | None, logical: str | None
) -> ProgramPath:
    """`called`: interpreter and script as they were called; `logical`: $PWD, which counts when it is `directory`.

    Of all known spellings of a path the one with the most links in it is the way: a link is there to be switched. The working directory
    is taken as $PWD spells it; the interpreter of no virtual environment belongs to no release.
    """
    given = Path(logical) if logical and directory and _is_same(Path(logical), directory) else None
    base = given or directory or Path("/")
    steps = [step for path in called for step in _followed(base / path) if step.exists()]
    links = {link: link.resolve() for path in (*steps, base) for link in _from_the_root(path)}
    return ProgramPath(
        python=_with_most_links(python, links) if is_environment else python,
        directory=given or (directory and _with_most_links(directory, links)),
    )


def _with_most_links(path: Path, links: Mapping[Path, Path]) -> Path:
    real = path.parent.resolve() / path.name
    spelt = [link / real.relative_to(target) for link, target in links.items() if real.is_relative_to(target)]
    return max((path, *(one for one in spelt if _is_same(one, path))), key=_count_links)


def _count_links(path: Path) -> int:
    return sum(step.is_symlink() for step in _from_the_root(path))


def _followed(path: Path) -> Iterator[Path]:
    """A path, and where it points while it is a link: a command in ~/.local/bin points into its environment."""
    for _ in range(MOST_LINKS):
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _from_the_root(path: Path) -> tuple[Path, ...]:
    return (*reversed(path.parents), path)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.is_absolute() and one.samefile(other)
    except OSError:
        return False


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None  # it was deleted
