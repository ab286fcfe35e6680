"""`hashee-agent doctor --leak-test`: sends a canary through the running agent as a message, then searches everything for it and for our secrets.

The message must come from a person with keys: on a sandbox relay of this machine one is made for it; otherwise the operator sends the
canary from a device. It is passed by standard input, so that it is on no command line.
"""

import secrets
import subprocess
import sys
from functools import partial
from urllib.parse import urlsplit

import click

from bus.settings.url_parts import is_loopback
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, ok, unknown
from supervisor.doctor.leaks import SUBJECT, look_into_files, look_into_logs, look_into_processes, needles_of
from supervisor.doctor.leaks_redis import look_into_redis
from supervisor.doctor.rounds import examine

SAY_SECONDS = 60.0
SEARCH_SECONDS = 120.0
PREFIX = "leak-test-"


def look_for_leaks(case: Case) -> list[Finding]:
    """Runs the test; returns the findings, and one on whether a canary was sent."""
    canary = f"{PREFIX}{secrets.token_hex(16)}"
    sent = _send(case, canary)
    needles = needles_of(case, canary if sent.verdict == "ok" else None)
    looks = {
        "leaks in files": look_into_files,
        "leaks in processes": look_into_processes,
        "leaks in logs": look_into_logs,
        "leaks in Redis": look_into_redis,
    }
    return [sent, *examine(case, {one: partial(look, needles=needles) for one, look in looks.items()}, SEARCH_SECONDS)]


def _send(case: Case, canary: str) -> Finding:
    if case.supervisor is None or case.base_url is None or case.agent_id is None:
        return unknown(
            SUBJECT, "canary", "none was sent: no agent runs; the secrets alone were searched for", "hashee-agent up"
        )
    if is_loopback(urlsplit(case.base_url).hostname or "") and _say_in_sandbox(case.base_url, case.agent_id, canary):
        return ok(SUBJECT, "canary", "a person of the sandbox relay has sent it, and the agent has answered")
    if sys.stdin.isatty():
        click.echo(
            f"Send this text to the agent from a device of yours, and wait for its answer:\n\n    {canary}\n", err=True
        )
        if click.confirm("Has it answered?", err=True):
            return ok(SUBJECT, "canary", "sent from a device of yours, and answered")
    remedy = "run it on a terminal, and send the text that it shows from a device of yours"
    return unknown(
        SUBJECT, "canary", "none was sent: with this relay a person must; the secrets alone were searched for", remedy
    )


def _say_in_sandbox(url: str, agent_id: str, canary: str) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "sandbox", "say", "--url", url, "--agent", agent_id],
            input=canary.encode(),
            capture_output=True,
            timeout=SAY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
