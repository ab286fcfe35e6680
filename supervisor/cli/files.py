"""`hashee-agent files`: runs the file gate, alone or as the keeper's child on a socket of the keeper's.

Of the agent's secrets it reads the token alone.
"""

import os
import resource
import socket

import click
import trio
from prometheus_client import disable_created_metrics
from setproctitle import setproctitle

from host.log_stream import divert_stderr
from supervisor.files.process import Timing, run_files
from supervisor.keeper.state_directory import listen
from supervisor.observe.logs import configure_logging
from supervisor.settings.files import FilesSettings
from supervisor.settings.process_limits import ready_limits

IDLE_SECONDS = 600.0
"""Under a keeper, which starts it again with the next call: what a process holds is given back after so long without one."""


@click.command(short_help="Run the file gate by itself, for workers elsewhere.")
@click.option("--keeper-fd", hidden=True, type=int, help="The listening socket, as the keeper passes it.")
def files(keeper_fd: int | None) -> int:
    """Run the file gate: it passes sealed files between workers and the relay. It has the agent's token and no key.

    `hashee-agent up` starts one by itself. Run it for workers that have no other way to it: it listens on HASHEE_FILES_LISTEN, and
    workers find it by HASHEE_FILES_URL. On another host than the supervisor's it needs HASHEE_FILES_KEY (`hashee-agent keys files`).
    """
    divert_stderr()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the token
    setproctitle("hashee-agent: files")
    disable_created_metrics()
    os.environ.pop("SSLKEYLOGFILE", None)  # libraries would write the keys of TLS there
    settings = FilesSettings.from_environ(os.environ)
    if keeper_fd is None:
        ready_limits()
    configure_logging(settings.log, "files")
    if keeper_fd is not None:
        listener = socket.socket(fileno=keeper_fd)
        trio.run(run_files, settings, listener, Timing(idle_seconds=IDLE_SECONDS))
        return 0
    with listen(*settings.listen) as listener:
        listener.listen()
        trio.run(run_files, settings, listener.dup())
    return 0
