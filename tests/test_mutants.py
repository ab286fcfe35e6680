"""The list of mutants: each stands where it says, and a module of host/, bus/ or supervisor/ that decides has one, or a reason to have none."""

import ast
import builtins
import keyword
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.__main__ import PARTS
from tests.mutants.crypto import CRYPTO
from tests.mutants.exempt import EXEMPT

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parent.parent
MUTANTS = [mutant for part in PARTS for mutant in part.mutants]
MUTATED = {mutant.file for mutant in MUTANTS}
REASONED = [place for places in EXEMPT.values() for place in places]

LUA_WORDS = {
    "nil",
    "true",
    "false",
    "then",
    "end",
    "do",
    "local",
    "function",
    "elseif",
    "tonumber",
    "tostring",
    "error",
    "redis",
}
KNOWN = {*keyword.kwlist, *dir(builtins), *LUA_WORDS}

WORD = re.compile(r"[A-Za-z_]\w*")
STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")

DECISIONS = (ast.If, ast.IfExp, ast.While, ast.BoolOp, ast.Compare, ast.Match)
LUA_DECISIONS = {"if", "elseif", "while", "and", "or"}


def decides(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return any(isinstance(node, DECISIONS) for node in ast.walk(ast.parse(text)))
    words = [word for line in text.splitlines() if not line.startswith("--") for word in line.split()]
    return not LUA_DECISIONS.isdisjoint(words)


def modules() -> set[str]:
    found = [
        path
        for room in ("host", "bus", "supervisor")
        for kind in ("*.py", "*.lua")
        for path in (ROOT / room).rglob(kind)
    ]
    return {str(file.relative_to(ROOT)) for file in found}


def is_within(module: str, place: str) -> bool:
    return module == place or (place.endswith("/") and module.startswith(place))


def test_a_module_that_decides_has_a_mutant_or_a_reason_to_have_none() -> None:
    deciding = {module for module in modules() if decides(ROOT / module)}
    without = {module for module in deciding - MUTATED if not any(is_within(module, place) for place in REASONED)}
    assert without == set(), "switch one of its guards off in tests/mutants, or name it with a reason in exempt.py"


def test_a_reason_is_of_a_module_that_decides_and_has_no_mutant() -> None:
    deciding = {module for module in modules() if decides(ROOT / module)}
    for place in REASONED:
        named = {module for module in deciding if is_within(module, place)}
        assert named, f"{place}: there is nothing that decides"
        assert named.isdisjoint(MUTATED), f"{place}: it has a mutant by now"
    assert [place for place, count in Counter(REASONED).items() if count > 1] == []


def test_each_mutant_has_a_name_of_its_own_and_its_guard_stands_once_where_it_says() -> None:
    """Else a run of all of them ends before it begins."""
    names = Counter(mutant.name for mutant in MUTANTS)
    assert [name for name, count in names.items() if count > 1] == []
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in MUTATED}
    assert [mutant.name for mutant in MUTANTS if texts[mutant.file].count(mutant.old) != 1] == []
    assert [mutant.name for mutant in MUTANTS if mutant.old == mutant.new] == []


def test_what_a_mutant_changes_is_still_python() -> None:
    """Else the run of all of them ends there, with a traceback."""
    broken = {}
    for mutant in MUTANTS:
        if mutant.file.endswith(".py"):
            changed = (ROOT / mutant.file).read_text(encoding="utf-8").replace(mutant.old, mutant.new, 1)
            try:
                compile(changed, mutant.file, "exec")
            except SyntaxError as error:
                broken[mutant.name] = str(error)
    assert broken == {}


def test_what_a_mutant_puts_in_is_known_where_it_stands() -> None:
    """Else its test dies of an unknown name, and shows nothing of the guard."""
    strange = {}
    for mutant in MUTANTS:
        text = (ROOT / mutant.file).read_text(encoding="utf-8")
        if unknown := names_in(mutant.new) - set(WORD.findall(text)) - KNOWN:
            strange[mutant.name] = sorted(unknown)
    assert strange == {}


def names_in(new: str) -> set[str]:
    """What a mutant's text reads, but for attributes; nothing of one that ends within a string or a word."""
    code = STRING.sub("", new)
    return set() if '"' in code else set(re.findall(r"(?<![\w.])(?!def )(?<!def )[A-Za-z]\w*(?!\w| *=[^=]|\Z)", code))


def test_the_tests_of_each_mutant_are_there() -> None:
    tests = {test for mutant in MUTANTS for test in mutant.tests}
    assert [test for test in tests if not (ROOT / test).is_file()] == []


def test_every_test_of_crypto_looks_at_its_mutants() -> None:
    """A file that stands in no list cannot notice, and its guards count as holes."""
    there = {str(file.relative_to(ROOT)) for file in (ROOT / "tests/crypto").glob("test_*.py")}
    assert there - {test for mutant in CRYPTO.mutants for test in mutant.tests} == set()
