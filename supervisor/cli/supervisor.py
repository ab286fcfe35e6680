"""`hashee-agent supervisor`: runs the process with the keys, alone or as the keeper's child.

The keeper's descriptors and its Redis come as hidden options; everything else comes from the environment.
"""

import faulthandler
import os
import resource
import signal
import socket

import click
import structlog
import trio
from prometheus_client import disable_created_metrics, values
from setproctitle import setproctitle

from bus.settings.reader import SettingsError
from bus.settings.shared import REDIS_URL
from bus.settings.spool_place import refuse_unusable_spool
from host.code_place import way_of_this_process
from host.log_stream import divert_stderr
from host.tuning import tune
from supervisor.control.keeper_link import STACKS, open_keeper_link
from supervisor.keeper.state_directory import make_private
from supervisor.observe.logs import configure_logging
from supervisor.run.app import run_supervisor
from supervisor.settings.env_files import claim
from supervisor.settings.misspelt import misspelt
from supervisor.settings.process_limits import ready_limits, refuse_hidden_proc
from supervisor.settings.supervisor import SupervisorSettings

log = structlog.get_logger()


@click.command(short_help="Run the supervisor alone, with its workers.")
@click.option("--workers", metavar="N|MIN:MAX", help="Worker processes here; 0: they run elsewhere (HASHEE_WORKERS).")
@click.option("--keeper-fds", hidden=True, help="HTTP socket and control socket, as the keeper passes them.")
@click.option("--beside-another", hidden=True, is_flag=True, help="An older generation runs and leaves when we serve.")
@click.option("--number", hidden=True, type=int, default=1, help="Which start of a supervisor under this keeper it is.")
@click.option("--keeper-redis", hidden=True, help="The URL of the keeper's private Redis.")
def supervisor(
    workers: str | None, keeper_fds: str | None, keeper_redis: str | None, beside_another: bool, number: int
) -> int:
    """Run the supervisor and its workers against a Redis of your own (HASHEE_REDIS_URL), as the Procfile does."""
    divert_stderr()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold keys
    setproctitle(f"hashee-agent: supervisor {number}")
    way_of_this_process(os.environ).note(os.environ)  # early: the links in the path may change later
    values.ValueClass = values.MutexValue  # $PROMETHEUS_MULTIPROC_DIR is for the owner's own metrics
    disable_created_metrics()  # they would double the number of series for no use
    os.environ.pop("SSLKEYLOGFILE", None)  # libraries would write the keys of TLS there
    claim(os.environ, {} if workers is None else {"HASHEE_WORKERS": workers})
    settings = SupervisorSettings.from_environ(os.environ)
    if settings.redis_url is None and keeper_redis is None:
        raise SettingsError(REDIS_URL.name, REDIS_URL.expectation, missing=True)
    configure_logging(settings.log, "supervisor")
    for name, meant in misspelt(os.environ).items():
        log.warning("settings: a name is none, and changes nothing", name=name, remedy=f"is {meant} meant?")
    tune()
    if keeper_fds is None:
        ready_limits()
        if settings.workers.most > 0:
            refuse_unusable_spool(os.environ)
        refuse_hidden_proc()
        make_private(settings.state_dir)
        return trio.run(run_supervisor, settings, None)
    http_fd, control_fd = _descriptors(keeper_fds)
    return trio.run(_under_keeper, settings, http_fd, control_fd, keeper_redis, beside_another)


async def _under_keeper(
    settings: SupervisorSettings, http_fd: int, control_fd: int, keeper_redis: str | None, beside_another: bool
) -> int:
    # For a keeper that finds us hanging. It reads what comes from here; where the keeper is an older release this is the null device.
    faulthandler.register(signal.SIGQUIT, file=STACKS, all_threads=True)
    control, http_socket = _adopt(control_fd), _adopt(http_fd)
    with http_socket:
        async with open_keeper_link(control, http_socket, keeper_redis, beside_another=beside_another) as link:
            return await run_supervisor(settings, link)


def _adopt(descriptor: int) -> socket.socket:
    """Takes over a keeper's socket, which our children do not inherit: a worker that kept it would hide our end from the keeper."""
    adopted = socket.socket(fileno=descriptor)
    adopted.set_inheritable(False)
    return adopted


def _descriptors(text: str) -> tuple[int, int]:
    try:
        http_fd, control_fd = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter("two numbers with a comma", param_hint="--keeper-fds") from None
    return http_fd, control_fd
