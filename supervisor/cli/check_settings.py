"""`hashee-agent check-settings`: reads all settings as the supervisor would, and ends."""

import os

import click

from supervisor.config import SupervisorSettings, WorkerSettings
from supervisor.state_directory import refuse_unusable


@click.command(short_help="Check the settings and end.")
@click.option("--worker", is_flag=True, help="Those of `hashee-agent worker`, a worker away from its supervisor.")
def check_settings(worker: bool) -> int:
    """Check every setting. Ends with 0, or with 78 and one line that names what is wrong; no value is shown."""
    if worker:
        WorkerSettings.from_environ(os.environ)
        return 0
    refuse_unusable(SupervisorSettings.from_environ(os.environ).state_dir)
    return 0
