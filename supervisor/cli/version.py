"""`hashee-agent version`: shows the versions of the program and of what it uses."""

import platform
from importlib.metadata import version as installed_version

import click

from host.embedded import ServerMissing, find_server


@click.command(short_help="Show versions.")
def version() -> None:
    """Show the version of hashee-agent, of Python, and of the Redis that `up` would start."""
    try:
        server = str(find_server())
    except ServerMissing:
        server = "none found"
    click.echo(f"hashee-agent {installed_version('hashee-agent')}")
    click.echo(f"python {platform.python_version()}")
    click.echo(f"private Redis: {server}")
