"""Tests arrange what they need by what a part offers, not by its private attributes: those may change with any commit."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

TESTS = Path(__file__).parent
OWN = {"self", "cls", "super()"}
SETS = ("setattr", "delattr")
ALLOWED: dict[str, dict[str, str]] = {
    "trials/deploy/metrics_page.py": {"_labelnames": "of prometheus_client, which has no public name for it"},
    "workers/model/play.py": dict.fromkeys(
        ("_core", "_run", "_r", "_ALLOW_DETERMINISTIC_SCHEDULING"),
        "of trio, whose order of tasks a seed settles by no public name (hypothesis does it so)",
    ),
}
"""By file, what is reached into all the same, and why nothing else serves."""


def private_names(source: str) -> set[str]:
    """Returns the private attributes that a file reaches for on anything but itself, also by name; `os._exit` is a public function."""
    return set(_found(ast.parse(source)))


def _found(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if ast.unparse(node.value) not in OWN and ast.unparse(node) != "os._exit":
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(SETS):
            words = [one.value for one in node.args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from (name for word in words if _is_private(name := word.rpartition(".")[2]))


def _is_private(name: str) -> bool:
    return re.match(r"_[^_]", name) is not None


def test_no_test_reaches_into_a_private_attribute_of_a_part() -> None:
    found = {
        str(path.relative_to(TESTS)): names
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__) and (names := private_names(path.read_text(encoding="utf-8")))
    }
    assert found == {path: set(reasons) for path, reasons in ALLOWED.items()}


def test_a_private_attribute_of_another_is_found_and_ones_own_is_not() -> None:
    source = 'core.outbound._reader.read\nself._own\nsuper()._own()\nos._exit(1)\nx.__class__\nsetattr(a, "_b", 1)\n'
    patched = 'monkeypatch.setattr("supervisor.relay.rest._ask", ask)\nmonkeypatch.setattr(rest, "ask", ask)'
    assert private_names(source + patched) == {"_reader", "_b", "_ask"}
