"""The command line. Each command is a file that is imported when it is used, since the keeper must stay small.

A wrong configuration ends with status 78 and one line that names the setting, without a traceback.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

import click

from host.log_stream import check_null_device, leave
from supervisor.cli.ending import EXIT_INTERRUPTED, ending_of
from supervisor.cli.lazy import LazyGroup

COMMANDS: Mapping[str, str] = {
    "init": "supervisor.cli.sandbox:init",
    "console": "supervisor.cli.sandbox:console",
    "replay": "supervisor.cli.sandbox:replay",
    "dev": "supervisor.cli.sandbox:dev",
    "up": "supervisor.cli.up:up",
    "supervisor": "supervisor.cli.supervisor:supervisor",
    "worker": "supervisor.cli.worker:worker",
    "files": "supervisor.cli.files:files",
    "upgrade": "supervisor.cli.upgrade:upgrade",
    "status": "supervisor.cli.status:status",
    "reload": "supervisor.cli.reload:reload",
    "scale": "supervisor.cli.scale:scale",
    "stop": "supervisor.cli.stop:stop",
    "sandbox": "supervisor.cli.sandbox:sandbox",
    "demo": "supervisor.cli.sandbox:demo",
    "healthcheck": "supervisor.cli.healthcheck:healthcheck",
    "version": "supervisor.cli.version:version",
    "conversations": "supervisor.cli.conversations:conversations",
    "send": "supervisor.cli.outside.send:send",
    "stream": "supervisor.cli.outside.stream:stream",
    "typing": "supervisor.cli.outside.typing:typing",
    "react": "supervisor.cli.outside.react:react",
    "recall": "supervisor.cli.outside.recall:recall",
    "mcp": "supervisor.cli.mcp.mcp:mcp",
    "trace": "supervisor.cli.trace:trace",
    "quarantine": "supervisor.cli.quarantine:quarantine",
    "dead": "supervisor.cli.dead:dead",
    "grants": "supervisor.cli.grants:grants",
    "keys": "supervisor.cli.keys:keys",
    "backup": "supervisor.cli.backup:backup",
    "restore": "supervisor.cli.restore:restore",
    "doctor": "supervisor.cli.doctor:doctor",
    "check-settings": "supervisor.cli.check_settings:check_settings",
}


@click.group(cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run an end-to-end-encrypted Hashee agent on your own server.

    \b
    First steps:      hashee-agent init, hashee-agent console, hashee-agent demo
    All on one host:  hashee-agent up
    In parts:         hashee-agent supervisor, hashee-agent worker, hashee-agent files

    Settings come from the environment: docs/settings.md lists them all.
    """


def main() -> NoReturn:
    """Runs the console script."""
    try:
        check_null_device()
        status = cli.main(standalone_mode=False)
    except click.ClickException as problem:
        with suppress(OSError):  # likewise below: nobody reads stderr any more, or its disk is full
            problem.show()
        leave(problem.exit_code)
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as problem:  # noqa: BLE001  # the process' edge
        ending = ending_of(problem)
        if ending.line is not None:
            with suppress(OSError):
                click.echo(f"hashee-agent: {ending.line}", err=True)
        leave(ending.status)
    if isinstance(status, int) and status != 0:
        leave(status)
    sys.exit(0)
