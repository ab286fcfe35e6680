"""`hashee-agent check-settings`: reads all settings like the supervisor, and reports faults."""

import os

import click

from bus.settings.redis_url import parse_redis_url
from bus.settings.shared import SHOWS_ERRORS
from bus.settings.spool_place import refuse_unusable_spool
from bus.telemetry.settings import NowhereToSend
from host.budgets import Budgets
from host.embedded import most_file_bytes
from supervisor.backup.settings import BackupSettings
from supervisor.control.control_socket import control_path
from supervisor.keeper.state_directory import refuse_unusable
from supervisor.settings.files import FilesSettings
from supervisor.settings.misspelt import misspelt
from supervisor.settings.process_limits import ready_limits, refuse_hidden_proc
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.worker import LoneWorkerSettings


@click.command(short_help="Check the settings and end.")
@click.option("--worker", is_flag=True, help="Those of `hashee-agent worker`, a worker away from its supervisor.")
@click.option("--files", is_flag=True, help="Those of `hashee-agent files`, a file gate by itself.")
@click.option("--quiet", is_flag=True, help="Say nothing where all is well.")
def check_settings(worker: bool, files: bool, quiet: bool) -> int:
    """Check every setting. Ends with 0 and how the relay is reached, or with 78 and one line that names what is wrong.

    No secret is shown.
    """
    for name, meant in () if quiet else misspelt(os.environ).items():
        click.echo(f"hashee-agent: {name} is no setting, and changes nothing: is {meant} meant?", err=True)
    if worker or files:
        LoneWorkerSettings.from_environ(os.environ) if worker else FilesSettings.from_environ(os.environ)
        ready_limits()
        if worker:
            refuse_unusable_spool(os.environ)
        return 0
    settings = SupervisorSettings.from_environ(os.environ)
    if not quiet:  # as a start asks, which needs no backups
        BackupSettings.from_environ(os.environ)
    refuse_unusable(settings.state_dir)
    if settings.workers.most > 0:
        refuse_unusable_spool(os.environ)
    refuse_hidden_proc()
    budgets = Budgets.here(settings.memory_bytes, settings.redis_memory_bytes)
    ready_limits(most_file_bytes(budgets.redis_bytes) if settings.redis_url is None else 0)
    control_path(settings.state_dir, settings.runtime_dir)
    if not quiet:
        click.echo(f"the settings are complete; the relay {settings.base_url} is reached {settings.way.shown}")
        if settings.redis_url is not None:
            click.echo(f"Redis is {parse_redis_url(settings.redis_url.reveal()).described}")
        if settings.files is not None:
            click.echo(f"files go through the file gate at {settings.files.shown}")
        if settings.shows_errors:
            click.echo(SHOWS_ERRORS)
        if isinstance(settings.telemetry, NowhereToSend):
            click.echo(f"OpenTelemetry is not sent: {settings.telemetry.reason}")
        elif settings.telemetry is not None:
            click.echo(f"OpenTelemetry is sent to {settings.telemetry.endpoint.shown}")
    return 0
