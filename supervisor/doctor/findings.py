"""What a look finds: a verdict on one thing, in words that hold no secret, and the command that helps."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """`warn`: it works, and something should be done before it does not. `unknown`: it could not be looked at."""

    BAD = "bad"
    WARN = "warn"
    UNKNOWN = "unknown"
    OK = "ok"


WORST_FIRST = tuple(Verdict)


class Finding(msgspec.Struct, frozen=True):
    """`subject` and `name` say which thing, always in the same words; `remedy` is empty where nothing is to be done."""

    subject: str
    name: str
    verdict: Verdict
    said: str
    remedy: str = ""


def worst_of(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of all; what is unknown is not worse than a warning."""
    return min((finding.verdict for finding in findings), key=WORST_FIRST.index, default=Verdict.OK)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By verdict, else in the order in which they came."""
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
    """The verdict on what must not become small."""
    return Verdict.BAD if value < spoils else Verdict.WARN if value < warns else Verdict.OK


def at_most(value: float, *, warns: float, spoils: float) -> Verdict:
    """The verdict on what must not become large."""
    return Verdict.BAD if value >= spoils else Verdict.WARN if value >= warns else Verdict.OK


def judged(subject: str, name: str, verdict: Verdict, said: str, remedy: str) -> Finding:
    """`remedy` only where something is to be done."""
    return Finding(subject, name, verdict, said, "" if verdict is Verdict.OK else remedy)
