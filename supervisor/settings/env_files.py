"""Settings in a file: `NAME=value`, one a line. Only its owner may read it, and the environment is stronger.

The rules are those on which the readers of such files agree (systemd's EnvironmentFile=, Compose, Procfile runners): nothing
is expanded, and what they read differently is refused with the file and the line. No error shows a value.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from urllib.parse import quote as quoted
from urllib.parse import unquote_to_bytes

SIZE_LIMIT_BYTES = 256 * 1024
LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
ESCAPED = re.compile(r"\\(.)")
OTHERS = 0o077
FILES = "HASHEE_ENV_FILES"
NAMES = "HASHEE_ENV_FILES_NAMES"


class EnvFileError(Exception):
    """The file cannot be used; the text names it, the line, and what to do."""


def read_env_file(path: Path) -> dict[str, str]:
    """Its names and values; the last of a name counts. Raises EnvFileError."""
    found: dict[str, str] = {}
    for number, line in _lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise EnvFileError(f"{path}, line {number}: NAME=value is wanted")
        found[match[1]] = _value(match[2], f"{path}, line {number}")
    return found


def add_env_file(path: Path, environ: MutableMapping[str, str]) -> None:
    """Puts in what `environ` does not have yet; an empty value there counts as not there. Raises EnvFileError.

    It also notes there what came from where, so that `environ_anew` can read the file again.
    """
    added = {name: value for name, value in read_env_file(path).items() if not environ.get(name)}
    environ.update(added)
    _note(environ, FILES, os.pathsep, [quoted(os.fsencode(path.absolute()))])
    _note(environ, NAMES, ",", added)


def env_files_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Returns the files that `environ` came from, by what `add_env_file` has noted."""
    noted = environ.get(FILES, "").split(os.pathsep)
    return tuple(Path(os.fsdecode(unquote_to_bytes(path))) for path in noted if path)


def environ_anew(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it would be if its files were read now. Raises EnvFileError."""
    from_files = frozenset(environ.get(NAMES, "").split(","))
    anew = {name: value for name, value in environ.items() if name not in {*from_files, FILES, NAMES}}
    for path in env_files_of(environ):
        add_env_file(path, anew)
    return anew


def claim(environ: MutableMapping[str, str], given: Mapping[str, str]) -> None:
    """What the command line says is stronger than any file, also when that is read again."""
    environ.update(given)
    if NAMES in environ:
        environ[NAMES] = ",".join(name for name in environ[NAMES].split(",") if name not in given)


def _note(environ: MutableMapping[str, str], where: str, separator: str, more: Iterable[str]) -> None:
    environ[where] = separator.join([*filter(None, [environ.get(where, "")]), *more])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = _read(path).decode("utf-8-sig")  # editors of Windows put a mark at its beginning
    except OSError as problem:
        raise EnvFileError(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise EnvFileError(f"{path} is not text in UTF-8") from None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith("#"):
            yield number, line


def _read(path: Path) -> bytes:
    """Raises OSError, EnvFileError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())  # of what was opened, not of what has its name by now
        if not stat.S_ISREG(found.st_mode):
            raise EnvFileError(f"{path} is not a file")
        if found.st_mode & OTHERS:
            raise EnvFileError(f"{path} can be read by others than its owner: chmod 600 {path}")
        if found.st_uid not in (os.geteuid(), 0):
            raise EnvFileError(f"{path} belongs to another user")
        if found.st_size > SIZE_LIMIT_BYTES:
            raise EnvFileError(f"{path} is larger than {SIZE_LIMIT_BYTES // 1024} KiB")
        return file.read()


def _value(text: str, place: str) -> str:
    quote = text[:1]
    if quote not in ("'", '"'):
        if re.search(r"\s#", text):
            raise EnvFileError(f"{place}: put a value with ' #' in it in quotes, and a comment on a line of its own")
        return _whole(text, place)
    if len(text) < 2 or not text.endswith(quote):
        raise EnvFileError(f"{place}: the quote is not closed at the end of the line")
    inner = text[1:-1]
    if quote == '"':
        if re.search(r'(?<!\\)(\\\\)*"', inner) or re.search(r"(?<!\\)(\\\\)*\\$", inner):
            raise EnvFileError(f'{place}: a " within double quotes is written \\"')
        inner = ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], inner)
    elif "'" in inner:
        raise EnvFileError(f"{place}: a ' cannot stand within single quotes")
    return _whole(inner, place)


def _whole(value: str, place: str) -> str:
    if "\0" in value:
        raise EnvFileError(f"{place}: there is a NUL in the value")
    return value
