"""The result of a check: a verdict on one thing, a text without secrets, and the command that helps."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """How bad it is. `warn`: it works, but something should be done before it does not. `unknown`: it could not be checked."""

    BAD = "bad"
    WARN = "warn"
    UNKNOWN = "unknown"
    OK = "ok"


WORST_FIRST = tuple(Verdict)


class Finding(msgspec.Struct, frozen=True):
    """One finding. `subject` and `name`: the thing, always in the same words; `remedy`: '' if nothing is to be done."""

    subject: str
    name: str
    verdict: Verdict
    said: str
    remedy: str = ""


def worst_of(findings: Iterable[Finding]) -> Verdict:
    """Returns the worst verdict of all; `unknown` is not worse than `warn`."""
    return min((finding.verdict for finding in findings), key=WORST_FIRST.index, default=Verdict.OK)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Returns them sorted by verdict, otherwise in their order."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.verdict))


def ok(subject: str, name: str, said: str) -> Finding:
    return Finding(subject, name, Verdict.OK, said)


def warn(subject: str, name: str, said: str, remedy: str) -> Finding:
    return Finding(subject, name, Verdict.WARN, said, remedy)


def bad(subject: str, name: str, said: str, remedy: str) -> Finding:
    return Finding(subject, name, Verdict.BAD, said, remedy)


def unknown(subject: str, name: str, said: str, remedy: str = "") -> Finding:
    return Finding(subject, name, Verdict.UNKNOWN, said, remedy)


def at_least(value: float, *, warns: float, spoils: float) -> Verdict:
    """Returns the verdict on a value that must not become small."""
    return Verdict.BAD if value < spoils else Verdict.WARN if value < warns else Verdict.OK


def at_most(value: float, *, warns: float, spoils: float) -> Verdict:
    """Returns the verdict on a value that must not become large."""
    return Verdict.BAD if value >= spoils else Verdict.WARN if value >= warns else Verdict.OK


def judged(subject: str, name: str, verdict: Verdict, said: str, remedy: str) -> Finding:
    """Returns a finding, with `remedy` only if something is to be done."""
    return Finding(subject, name, verdict, said, "" if verdict is Verdict.OK else remedy)
