"""A real keeper process over the stub supervisor: `python stub_keeper.py PLAN.json`, settings from the environment."""

import ctypes
import json
import os
import sys
from functools import partial
from pathlib import Path

import trio

from supervisor.keeper.keeper import Timings, run_keeper
from supervisor.keeper.supervision import SupervisorArguments
from supervisor.observe.logs import configure_logging
from supervisor.settings.keeper import KeeperSettings

PR_SET_CHILD_SUBREAPER = 36
STUB = Path(__file__).with_name("stub_supervisor.py")
STUB_GATE = Path(__file__).with_name("stub_gate.py")


def command(plan_path: str, arguments: SupervisorArguments) -> list[str]:
    fds = [str(arguments.http_fd), str(arguments.control_fd)]
    return [sys.executable, str(STUB), plan_path, *fds, arguments.redis_url or ""]


def files_command(python: str, descriptor: int) -> list[str]:
    return [python, str(STUB_GATE), str(descriptor)]


def main() -> int:
    plan_path = sys.argv[1]
    settings = KeeperSettings.from_environ(os.environ)
    configure_logging(settings.log, "keeper")
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    timings = Timings(**plan.get("timings", {}))
    if "orphan" in plan:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # as if it were pid 1
    keep = partial(run_keeper, settings, partial(command, plan_path), os.environ, timings)
    return trio.run(partial(keep, files_command=files_command if "files" in plan else None))


if __name__ == "__main__":
    sys.exit(main())
