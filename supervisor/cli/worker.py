"""`hashee-agent worker`: replaces this process by `python -m workers` on the same Redis, on this host or another.

The supervisor's secrets are removed from the environment before, since a worker has no use for them.
"""

import base64
import os
import sys
from collections.abc import Mapping

import click

from bus.settings.llm import API_KEY, api_key_to_hand_on
from bus.settings.shared import BUS_KEY, REDIS_URL
from bus.settings.spool_place import refuse_unusable_spool
from bus.telemetry.settings import HEADERS, headers_to_hand_on
from supervisor.cli.as_init import run_as_init
from supervisor.settings.process_limits import ready_limits
from supervisor.settings.table import ALL_SETTINGS
from supervisor.settings.worker import LoneWorkerSettings

NOT_HANDED_ON = frozenset({"CREDENTIALS_DIRECTORY", "SSLKEYLOGFILE"})
"""With SSLKEYLOGFILE libraries would write the keys of TLS into that file."""


@click.command(short_help="Run one worker away from its supervisor.")
@click.option("--handler", metavar="MODULE:NAME", help="Your agent (HASHEE_HANDLER).")
@click.option("--concurrency", metavar="N", help="Jobs at a time (HASHEE_CONCURRENCY, default 64).")
def worker(handler: str | None, concurrency: str | None) -> None:
    """Run one worker process that takes jobs from the Redis of a supervisor, on this host or another.

    It needs HASHEE_AGENT_ID, HASHEE_REDIS_URL and HASHEE_BUS_KEY (or HASHEE_BUS_KEY_FILE), and none of the agent's
    own keys.
    """
    given = {"HASHEE_HANDLER": handler, "HASHEE_CONCURRENCY": concurrency}
    environ = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    settings = LoneWorkerSettings.from_environ(environ)
    ready_limits()
    refuse_unusable_spool(environ)
    argv = [sys.executable, "-P", "-m", "workers", "--handler", settings.handler]
    argv += ["--concurrency", str(settings.concurrency)]
    handed_on = worker_environment(settings, environ)
    if os.getpid() == 1:
        sys.exit(run_as_init([*argv, "--parent-pid", "1"], handed_on))
    os.execve(sys.executable, argv, handed_on)  # noqa: S606


def worker_environment(settings: LoneWorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without any secret of ours except those that a worker on another host needs."""
    secret = {name for setting in ALL_SETTINGS if setting.secret for name in (setting.name, f"{setting.name}_FILE")}
    kept = {name: value for name, value in environ.items() if name not in secret | NOT_HANDED_ON}
    kept[REDIS_URL.name] = settings.redis_url.reveal()
    kept |= {HEADERS.name: environ[HEADERS.name]} if HEADERS.name in environ else headers_to_hand_on(environ)
    kept |= {API_KEY.name: environ[API_KEY.name]} if API_KEY.name in environ else api_key_to_hand_on(environ)
    kept[BUS_KEY.name] = base64.b64encode(settings.bus_key.reveal()).decode()
    return kept
