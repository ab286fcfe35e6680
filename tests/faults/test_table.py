"""The fault table holds: every loop over the outside has a row, every row a loop, and every test that a row names is there."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.faults import scan
from tests.faults.table import ROWS, Fault, Kind
from tests.faults.test_redis_loops import REDIS_LOOPS, RELAY_LOOPS

pytestmark = pytest.mark.pure


def test_every_loop_over_the_outside_has_a_row_and_every_row_a_loop() -> None:
    found = scan.loops()
    new = {f"{name} (line {line})" for name, line in found.items() if name not in ROWS}
    assert new == set(), "say in tests/faults/table.py what each is over, and which tests put its faults in its way"
    assert set(ROWS) - set(found) == set(), "these are gone, or have another name: so have their rows"


@pytest.mark.parametrize("name", ROWS)
def test_every_fault_of_a_loop_has_a_test_that_exists(name: str) -> None:
    row = ROWS[name]
    faults = {fault for kind in row.kinds for fault in kind.value if isinstance(fault, Fault)}
    assert set(row.tests) == faults
    for test in {one for tests in row.tests.values() for one in tests}:
        path, _, function = test.partition("::")
        assert function in functions_of(path), test
    assert bool(row.why) == (row.kinds in {(Kind.STEP,), (Kind.HERE,)})


def test_the_tests_over_all_loops_run_those_that_name_them() -> None:
    named = {
        name
        for name, row in ROWS.items()
        for tests in row.tests.values()
        if any("test_no_loop_over_redis" in one for one in tests)
    }
    run = {name.partition(".")[0] + name[len(name.partition(".")[0]) :] for name in REDIS_LOOPS}
    assert run <= named
    rooms_run = {name.rpartition(".")[0] for name in run}
    assert {name.rpartition(".")[0] for name in named} == rooms_run, "each is a loop of a part that runs there"
    relay = {name for name, row in ROWS.items() if Kind.RELAY in row.kinds}
    assert relay == set(RELAY_LOOPS)


def test_each_thread_of_ours_stands_in_the_table_of_the_design() -> None:
    page = (scan.ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = page[page.index("| thread | in |") :].partition("\n\n")[0]
    names = {name or place for place, name in scan.threads().items()}
    unnamed = {"workers/process/worker.py:_after:unnamed", "supervisor/observe/http.py:HttpServer.start:THREAD"}
    assert {name for name in names - unnamed if f"`{name}`" not in table} == set()
    assert unnamed <= names  # the timer of an end; the thread that is called `http`


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((scan.ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
