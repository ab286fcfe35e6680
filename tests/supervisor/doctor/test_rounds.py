"""One look that hangs or fails hides no other, and its end is a finding."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, Verdict, bad, ok, unknown, warn, worst_first, worst_of
from supervisor.doctor.rounds import examine
from tests.supervisor.doctor.builders import case_of

pytestmark = pytest.mark.pure


def test_what_hangs_and_what_fails_are_findings_beside_the_others(tmp_path: Path) -> None:
    released = threading.Event()

    def hangs(_case: Case) -> Iterator[Finding]:
        yield ok("disk", "first", "found before")
        released.wait()

    def fails(_case: Case) -> Iterator[Finding]:
        yield ok("redis", "first", "found before")
        raise ZeroDivisionError("a secret")

    def works(_case: Case) -> Iterator[Finding]:
        yield ok("files", "all", "well")

    def may_not(_case: Case) -> Iterator[Finding]:
        yield from ()
        raise PermissionError(13, "Permission denied", "/state/redis")

    looks = {"disk": hangs, "redis": fails, "files": works, "spool": may_not}
    found = examine(case_of(tmp_path), looks, limit_seconds=1.0)
    released.set()
    assert [(one.subject, one.name, one.verdict.value) for one in found] == [
        ("disk", "first", "ok"),
        ("disk", "time", "bad"),
        ("redis", "first", "ok"),
        ("redis", "look", "unknown"),
        ("files", "all", "ok"),
        ("spool", "look", "unknown"),
    ]
    assert found[5].said.startswith("this user may not look: /state/redis: Permission denied")
    assert "ZeroDivisionError at test_rounds.py:" in found[3].said
    assert "secret" not in found[3].said


def test_the_worst_comes_first_and_what_is_unknown_is_less_than_a_warning() -> None:
    findings = [ok("a", "a", ""), unknown("b", "b", ""), warn("c", "c", "", "x"), bad("d", "d", "", "x")]
    assert [one.subject for one in worst_first(findings)] == ["d", "c", "b", "a"]
    assert worst_of(findings[:2]) is Verdict.UNKNOWN
    assert worst_of([]) is Verdict.OK
