"""A case for one look, and what was found by its name."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from supervisor.doctor.case import Case, read_case
from supervisor.doctor.findings import Finding, Verdict
from tests.supervisor.settings.environment import SECRETS, process_environ


def case_of(state_dir: Path, status: Mapping[str, Any] | None = None, **environ: str) -> Case:
    """Complete settings with this state directory; more settings as they are."""
    return dataclasses.replace(read_case(process_environ(state_dir, **environ)), status=status)


def named(findings: Iterable[Finding]) -> dict[str, Finding]:
    """By "subject: name". No finding says a secret, and each that is bad or a warning says what helps."""
    found = {f"{finding.subject}: {finding.name}": finding for finding in findings}
    for finding in found.values():
        assert not any(secret in f"{finding.said} {finding.remedy}" for secret in SECRETS)
        assert finding.remedy or finding.verdict in (Verdict.OK, Verdict.UNKNOWN), finding
    return found


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    return {name: finding.verdict.value for name, finding in named(findings).items()}
