"""`hashee-agent doctor`: shows the findings of all checks with the commands that help, for people or as JSON."""

import dataclasses
import json
import os
import time
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from bus.control.client import Control, Unanswered
from bus.control.messages import Request
from supervisor.cli.ending import EXIT_CONFIGURATION
from supervisor.cli.lazy import ENV_FILE
from supervisor.cli.leak_test import look_for_leaks
from supervisor.cli.store import shown
from supervisor.doctor.case import Case, read_case
from supervisor.doctor.findings import Finding, Verdict, worst_first, worst_of
from supervisor.doctor.looks import LOOKS
from supervisor.doctor.rounds import examine
from supervisor.settings.env_files import EnvFileError, add_env_file

STATUS_SECONDS = 8.0  # the keeper itself waits 5 s for its supervisor


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` shows; fields may be added, never changed. `at_ms`: Unix time. `worst`: the worst verdict."""

    version: str
    at_ms: int
    worst: Verdict
    findings: list[Finding]


def _read_env_files(context: click.Context, _option: click.Parameter, paths: tuple[Path, ...]) -> None:
    """Reads the files of --env-file; one that cannot be used becomes a finding instead of ending the command."""
    problems = context.ensure_object(list)
    for path in paths:
        try:
            add_env_file(path, os.environ)
        except EnvFileError as problem:
            problems.append(str(problem))


@click.command(short_help="Look for what is wrong, and say what helps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--leak-test", is_flag=True, help="Search for a canary that a person sends, and for our secrets.")
@click.option(
    "--env-file",
    ENV_FILE,
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_read_env_files,
    help="Settings as NAME=value lines; one that cannot be read is told among the rest.",
)
@click.pass_obj
def doctor(problems: list[str] | None, as_json: bool, leak_test: bool) -> int:
    """Look at settings, key files, clock, relay, Redis, file gate, disk and the running agent, and say of each what helps. It changes nothing.

    Ends with 0 when nothing is bad (there may be warnings), with 1 when something is, with 78 when the settings cannot be read. With an
    agent or without one; no secret is shown. The findings are sorted: what is bad comes first.

    With --leak-test only this: a canary goes through the agent as a message, from a person of a sandbox relay or from a device of yours; then log,
    Redis, files and processes are searched for it and for token and keys. What is found is named by its place.
    """
    case = _asked(read_case(os.environ, tuple(problems or ())))
    findings = worst_first(look_for_leaks(case) if leak_test else examine(case, LOOKS))
    if as_json:
        report = Report(
            version=version("hashee-agent"),
            at_ms=int(time.time() * 1000),
            worst=worst_of(findings),
            findings=findings,
        )
        click.echo(json.dumps(msgspec.to_builtins(report)))  # in ASCII, as every command: no locale changes it
    else:
        _tell(findings)
    if case.settings_problems:
        return EXIT_CONFIGURATION
    return 1 if worst_of(findings) is Verdict.BAD else 0


def _asked(case: Case) -> Case:
    """Returns the case with the running agent's status, or the reason why there is none."""
    if case.state_dir is None:
        return dataclasses.replace(case, status_problem="the settings do not say where an agent would be")
    try:
        request = Request("status")
        control = Control(case.state_dir, case.runtime_dir)
        for answer in control.answers(request, patience_seconds=STATUS_SECONDS):
            if answer.ok:
                return dataclasses.replace(case, status=msgspec.json.decode(answer.result))
            return dataclasses.replace(case, status_problem=answer.error)
    except Unanswered as problem:
        return dataclasses.replace(case, status_problem=str(problem))
    return dataclasses.replace(case, status_problem="the agent ended before it answered")


def _tell(findings: list[Finding]) -> None:
    """Shows a line for each finding and one with what helps; nothing is cut, so that the output can be searched."""
    width = max(len(f"{finding.subject}: {finding.name}") for finding in findings)
    for finding in findings:
        name = f"{finding.subject}: {finding.name}"
        click.echo(f"{finding.verdict.value:<8}{name:<{width}}  {shown(finding.said)}")
        if finding.remedy:
            click.echo(f"{'':<8}{'':<{width}}  → {shown(finding.remedy)}")
    counts = [(verdict.value, sum(one.verdict is verdict for one in findings)) for verdict in Verdict]
    click.echo(", ".join(f"{count} {name}" for name, count in counts if count))
