"""Tests arrange what they need by what a part offers, not by its private attributes: those may change with any commit.

What a module calls private nobody else imports, in the product either.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGES = ("crypto", "host", "bus", "workers", "supervisor", "sandbox", "examples", "bench", "tests")
OWN = {"self", "cls", "super()"}
SETS = ("setattr", "delattr")
CONCERNED = re.compile(r"(?<!self)(?<!cls)(?<!super\(\))\._[^_]|setattr|delattr")
"""A file without any of these reaches for nothing private, and is not parsed."""

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
    return set(_found(ast.parse(source))) if CONCERNED.search(source) else set()


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


PRIVATE_IMPORT = re.compile(r"^\s*(from|import)\s([^\n(]*|[^\n(]*\([^)]*)\b_[^_\W]", re.MULTILINE)
"""A file without such a line imports nothing private, and is not parsed."""

NAMED_SO_BY_OTHERS = {"bus/records/sealing.py": {"_sodium"}}
"""By file, what is private by its name and of a library that has no public one."""


def private_imports(source: str) -> set[str]:
    """Returns what a file imports that another module, or package, calls private: `from x import _y`, `import x._y`, `from x._y import z`.

    In bench/ a file whose name begins with _ is no benchmark, and no more private than others.
    """
    if not PRIVATE_IMPORT.search(source):
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module="bench"):
                continue
            case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("bench._"):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases):
                names = [module or "", *(alias.name for alias in aliases)]
            case _:
                continue
        found |= {part for name in names for part in name.split(".") if _is_private(part)}
    return found


def test_nobody_imports_what_a_module_calls_private() -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(paths) > 400
    found = {
        str(path.relative_to(ROOT)): names
        for path in paths
        if (names := private_imports(path.read_text(encoding="utf-8")))
    }
    assert found == NAMED_SO_BY_OTHERS


@pytest.mark.parametrize(
    "source",
    [
        "from supervisor.relay.rest import _ask",
        "from supervisor.relay.rest import (\n    Rest,\n    _ask,\n)",
        "from supervisor.relay.rest import _ask as ask",
        "import supervisor._ask",
        "from supervisor._ask import anything",
        "from ._ask import anything",
        "from . import _ask",
        "def later():\n    from supervisor.relay.rest import _ask",
    ],
)
def test_a_private_import_is_found(source: str) -> None:
    assert private_imports(source) == {"_ask"}


def test_what_is_public_or_pythons_own_may_be_imported() -> None:
    source = "from __future__ import annotations\nfrom a.b import c as _c\nimport x.__main__\n_ours = 1\n"
    assert private_imports(source) == set()
