"""`hashee-agent up`: runs the keeper, and by it everything that one host needs.

A child checks the settings, reads the secrets for that and ends, so that the keeper itself never reads them.
"""

import os
import subprocess
import sys
from functools import partial

import click
import trio
from setproctitle import setproctitle

from host.log_stream import divert_stderr
from supervisor.backup.switching import after_interruption
from supervisor.keeper.keeper import run_keeper
from supervisor.keeper.state_directory import refuse_unusable
from supervisor.keeper.supervision import SupervisorArguments
from supervisor.observe.logs import configure_logging
from supervisor.settings.env_files import claim
from supervisor.settings.keeper import KeeperSettings


@click.command(short_help="Run everything on this host.")
@click.option("--workers", metavar="N|MIN:MAX", help="Worker processes (HASHEE_WORKERS, default 2).")
@click.option("--handler", metavar="MODULE:NAME", help="Your agent (HASHEE_HANDLER).")
@click.option("--concurrency", metavar="N", help="Jobs at a time in one worker (HASHEE_CONCURRENCY, default 64).")
@click.option("--reload", is_flag=True, help="For development: new workers whenever a file of your handler changes.")
def up(workers: str | None, handler: str | None, concurrency: str | None, reload: bool) -> int:
    """Run everything on this host: a private Redis (unless HASHEE_REDIS_URL names one), the supervisor, the workers.

    It is the main process: TERM or INT drains and ends it, a second one ends it at once. Status page and metrics are
    on http://127.0.0.1:9090 (HASHEE_HTTP_HOST, HASHEE_HTTP_PORT).
    """
    divert_stderr()
    given = {"HASHEE_WORKERS": workers, "HASHEE_HANDLER": handler, "HASHEE_CONCURRENCY": concurrency}
    given["HASHEE_RELOAD"] = "1" if reload else None
    environ = dict(os.environ)
    claim(environ, {name: value for name, value in given.items() if value is not None})
    setproctitle("hashee-agent: keeper")  # early: it also overwrites what /proc shows of the environment
    settings = KeeperSettings.from_environ(environ)
    refuse_unusable(settings.state_dir)
    after = after_interruption(settings.state_dir) if settings.state_dir.is_dir() else None
    if after is not None:
        click.echo(f"hashee-agent: {after.text}", err=True)
    check = [*_program(sys.executable), "check-settings", "--quiet"]
    status = subprocess.run(check, env=environ, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        return status if status > 0 else 128 - status
    configure_logging(settings.log, "keeper")
    return trio.run(partial(run_keeper, settings, supervisor_command, environ, files_command=files_command))


def supervisor_command(arguments: SupervisorArguments) -> list[str]:
    command = [*_program(arguments.python), "supervisor", "--keeper-fds", f"{arguments.http_fd},{arguments.control_fd}"]
    if arguments.redis_url is not None:
        command += ["--keeper-redis", arguments.redis_url]
    command += ["--number", str(arguments.number)]
    return [*command, "--beside-another"] if arguments.beside_another else command


def files_command(python: str, descriptor: int) -> list[str]:
    return [*_program(python), "files", "--keeper-fd", str(descriptor)]


def _program(python: str) -> list[str]:
    return [python, "-P", "-m", "supervisor"]
