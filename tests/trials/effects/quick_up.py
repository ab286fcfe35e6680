"""`hashee-agent up` with short pauses between restarts, since somebody is killed every second; everything else is the real thing."""

import os
import sys
from functools import partial
from pathlib import Path

import trio
from setproctitle import setproctitle

from supervisor.cli.up import supervisor_command
from supervisor.keeper.keeper import Timings, run_keeper
from supervisor.keeper.supervision import SupervisorArguments
from supervisor.observe.logs import configure_logging
from supervisor.settings.keeper import KeeperSettings

SHORT = Timings(backoff_base=0.01, backoff_cap=0.01)
OF_THE_MODULE = ["-m", "supervisor"]
QUICK_SUPERVISOR = str(Path(__file__).with_name("quick_supervisor.py"))


def quick_supervisor_command(arguments: SupervisorArguments) -> list[str]:
    """The supervisor's own command, by way of quick_supervisor.py."""
    command = supervisor_command(arguments)
    at = command.index("-m")
    if command[at : at + 2] != OF_THE_MODULE:
        raise RuntimeError(f"a supervisor is started in another way by now: {command}")
    return [*command[:at], QUICK_SUPERVISOR, *command[at + 2 :]]


def main() -> int:
    """Runs the keeper until it is told to end."""
    environ = dict(os.environ)
    setproctitle("hashee-agent: keeper")
    settings = KeeperSettings.from_environ(environ)
    configure_logging(settings.log, "keeper")
    return trio.run(partial(run_keeper, settings, quick_supervisor_command, environ, SHORT))


if __name__ == "__main__":
    sys.exit(main())
