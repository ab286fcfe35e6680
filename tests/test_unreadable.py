"""Bytes of another process, a file or Redis that cannot be decoded are one thing, whatever is raised for them: no loop ends of one kind of it."""

import ast
import re
from collections.abc import Iterator

import msgspec
import pytest

from host.unreadable import UNREADABLE, UNWRITABLE, can_be_kept
from tests.sources import lines_that

pytestmark = pytest.mark.pure

FOLDERS = ("host", "bus", "workers", "supervisor")  # crypto imports nothing of ours, and names all of them itself
ALL_OF_IT = "UNREADABLE"
A_PART_OF_IT = re.compile(r"\bmsgspec\.(DecodeError|MsgspecError)\b")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"type":',
        b'{"type":"\xff"}',
        b'"\\ud800"',
        b"1e400",
        b"NaN",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=["nothing", "cut", "no UTF-8", "half a surrogate", "1e400", "NaN", "deep and cut", "deep"],
)
def test_what_msgspec_cannot_read_as_json_is_in_one_tuple(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(text)


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\xa1\xff", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff"],
    ids=["nothing", "no MessagePack", "no UTF-8", "deep", "cut"],
)
def test_what_msgspec_cannot_read_as_msgpack_is_in_one_tuple(packed: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.msgpack.decode(packed)


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, "\ud800", {"\udfff": 1}, deep(1_000_000), object()],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_down_is_in_one_tuple_too(value: object) -> None:
    with pytest.raises(UNWRITABLE):
        msgspec.msgpack.encode(value)
    assert not can_be_kept(value)


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 1e308, None, {"a": [True, "é"]}])
def test_what_json_and_msgpack_both_have_can_be_kept(value: object) -> None:
    assert can_be_kept(value)


def caught(tree: ast.AST) -> Iterator[ast.expr]:
    """Every expression that says what is caught or suppressed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield node.type
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from node.args


def parts(text: str) -> list[int]:
    """The lines that catch a part of what is raised for bytes that cannot be read."""
    return [
        one.lineno
        for one in caught(ast.parse(text))
        if A_PART_OF_IT.search(said := ast.unparse(one)) and ALL_OF_IT not in said
    ]


def test_whoever_decodes_catches_all_that_is_raised_for_what_cannot_be_read() -> None:
    assert lines_that(parts, FOLDERS, concerned=A_PART_OF_IT, least=300) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("try: pass\nexcept msgspec.DecodeError: pass", [2]),
        ("try: pass\nexcept (OSError, msgspec.DecodeError): pass", [2]),
        ("with contextlib.suppress(msgspec.DecodeError): pass", [1]),
        ("try: pass\nexcept (OSError, *UNREADABLE): pass", []),
        ("with suppress(*UNREADABLE): pass", []),
    ],
)
def test_a_part_of_it_is_seen(source: str, found: list[int]) -> None:
    assert parts(source) == found
