"""`hashee-agent reload`: replaces the workers one after the other, with the present code and settings."""

import click

from bus.control.messages import Request
from supervisor.cli.control import ask_once


@click.command(short_help="Replace the workers, with new code and settings.")
def reload() -> int:
    """Start new workers with fresh code and settings, each taking over from an old one when it takes jobs.

    No job is interrupted. If the new ones do not start, the old ones stay: status 1 and the reason.
    """
    ask_once(Request("reload"), patience_seconds=None)
    click.echo("reloaded")
    return 0
