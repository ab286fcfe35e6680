"""`hashee-agent up` with short times: `python quick_keeper.py`. Everything else is the real thing."""

import os
import sys
from functools import partial

import trio
from setproctitle import setproctitle

from supervisor.cli.up import supervisor_command
from supervisor.keeper.keeper import Timings, run_keeper
from supervisor.observe.logs import configure_logging
from supervisor.settings.keeper import KeeperSettings


def main() -> int:
    environ = dict(os.environ)
    setproctitle("hashee-agent: keeper")
    settings = KeeperSettings.from_environ(environ)
    configure_logging(settings.log, "keeper")
    timings = Timings(backoff_base=0.02, backoff_cap=0.05, silence=float(environ.get("TEST_SILENCE_SECONDS", "60")))
    return trio.run(partial(run_keeper, settings, supervisor_command, environ, timings))


if __name__ == "__main__":
    sys.exit(main())
