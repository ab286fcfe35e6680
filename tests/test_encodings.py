"""What is text says in which encoding: left out, it is that of the locale, and on a machine with another one the file is not read.

Ruff's own rule (PLW1514) sees only `Path(…)` written out, so calls are looked at here by their name.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.sources import lines_that

pytestmark = pytest.mark.pure

FOLDERS = ("crypto", "host", "bus", "workers", "supervisor", "sandbox", "examples", "bench", "tests")
TEMPORARY_FILES = frozenset({"NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"})
MODES = frozenset("rwxab+t")


CONCERNED = re.compile(r"read_text|write_text|TextIOWrapper|open\(|TemporaryFile|\btext=|universal_newlines")
"""A file without one of these words has no call of the kind, and is not parsed."""


def leaves_it_to_the_locale(call: ast.Call) -> bool:
    """Whether the call reads or writes text and does not say in which encoding."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    if any(is_constant(given.get(name), True) for name in ("text", "universal_newlines")):
        return True
    match call.func:
        case ast.Attribute(attr="read_text"):
            return not call.args
        case ast.Attribute(attr="write_text"):
            return len(call.args) < 2
        case ast.Attribute(attr="TextIOWrapper") | ast.Name(id="TextIOWrapper"):
            return len(call.args) < 2
        case ast.Name(id="open") | ast.Attribute(attr="fdopen"):
            return is_text(given.get("mode") or argument(call, 1), unless_said=True)
        case ast.Attribute(value=ast.Name(id="os"), attr="open"):
            return False
        case ast.Attribute(attr="open"):  # a Path's; what else can be opened takes no mode
            return is_text(given.get("mode") or argument(call, 0), unless_said=False)
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in TEMPORARY_FILES:
            return is_text(given.get("mode") or argument(call, 0), unless_said=False)
        case _:
            return False


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def argument(call: ast.Call, place: int) -> ast.expr | None:
    return call.args[place] if len(call.args) > place else None


def is_text(mode: ast.expr | None, *, unless_said: bool) -> bool:
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
        return mode is None and unless_said
    return set(mode.value) <= MODES and "b" not in mode.value


def calls(text: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))


def test_whoever_reads_or_writes_text_says_in_which_encoding() -> None:
    def are_wrong(text: str) -> list[int]:
        return [call.lineno for call in calls(text) if leaves_it_to_the_locale(call)]

    assert lines_that(are_wrong, FOLDERS, concerned=CONCERNED, least=400) == []


@pytest.mark.parametrize(
    "text",
    [
        "path.read_text()",
        "path.read_text(errors='replace')",
        "path.write_text('a')",
        "open(path)",
        "open(path, 'w')",
        "os.fdopen(1, 'w')",
        "path.open('a')",
        "path.open(mode='r')",
        "io.TextIOWrapper(raw)",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(argv, text=True)",
        "partial(subprocess.run, universal_newlines=True)",
    ],
)
def test_what_leaves_it_to_the_locale_is_seen(text: str) -> None:
    [call, *_] = calls(text)
    assert CONCERNED.search(text)
    assert leaves_it_to_the_locale(call)


@pytest.mark.parametrize(
    "text",
    [
        "path.read_text(encoding='utf-8')",
        "path.write_text('a', 'utf-8')",
        "path.read_bytes()",
        "open(path, 'rb')",
        "os.open(path, flags)",
        "path.open('ab')",
        "session.open(envelope)",
        "key.open(sealed, 'quarantine', agent_id)",
        "tempfile.NamedTemporaryFile()",
        "subprocess.run(argv, text=True, encoding='utf-8')",
        "subprocess.run(argv)",
    ],
)
def test_what_says_it_or_is_no_text_passes(text: str) -> None:
    [call, *_] = calls(text)
    assert not leaves_it_to_the_locale(call)
