"""Finds the interpreter and the working directory that children are started with, through the links in the path of this program.

Releases are installed beside each other, and a link says which one counts: `current/venv/bin/hashee-agent up`, or `hashee-agent up`
inside of `current`. The kernel and a script's first line know only where the link led at the start; the path through the link stands
in argv[0] and in $PWD. All of a process runs from where that path led at its start. It is followed anew when new code is wanted
(an upgrade, a reload), or when the old place is gone.
"""

import errno
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WAY_PYTHON = "HASHEE_WAY_PYTHON"
WAY_DIRECTORY = "HASHEE_WAY_DIRECTORY"
"""Variables in which a keeper hands its path to its supervisors. Not settings."""

MOST_LINKS = 40  # as many as the kernel follows


class CodeGone(OSError):
    """The code is not where its path leads; the text names the path, and the link in it that leads nowhere."""

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
    """An interpreter and a working directory to start children with; None means the parent's directory."""

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
    """The paths of interpreter and working directory as they were given, with their links."""

    python: Path
    directory: Path | None

    def look(self) -> CodePlace:
        """Returns where the paths lead now. Raises CodeGone."""
        # The interpreter's own link is kept: Python finds its virtual environment by the file beside it.
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
        """Writes both paths into `environ`, where `way_of_this_process` finds them in a child, or later in this process."""
        environ[WAY_PYTHON] = str(self.python)
        if self.directory is not None:
            environ[WAY_DIRECTORY] = str(self.directory)


class Code:
    """The place that children are started from at present, among those to which the path has led."""

    def __init__(self, way: ProgramPath, place: CodePlace) -> None:
        self.way = way
        self._place = place

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str]) -> "Code":
        return cls(way_of_this_process(environ), CodePlace.of_this_process())

    def in_use(self) -> CodePlace:
        """Returns the place that the running children were started from; if it is gone, where the path leads now. Raises CodeGone."""
        if not self._place.is_there:
            self._place = self.way.look()
        return self._place

    def use(self, place: CodePlace) -> None:
        """Starts children from `place` from now on."""
        self._place = place


def way_of_this_process(environ: Mapping[str, str]) -> ProgramPath:
    """Returns the path that the keeper has noted in `environ`, else the one that this process was started by."""
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
    """Returns the path to the code: the known spelling of it that goes through the most links, since a link is there to be switched.

    `called`: interpreter and script as they were called. `logical`: $PWD, which is used when it names the same place as `directory`.
    An interpreter outside of a virtual environment belongs to no release and is taken as it is.
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
    """Yields a path and, while it is a link, where it points: a command in ~/.local/bin points into its environment."""
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
