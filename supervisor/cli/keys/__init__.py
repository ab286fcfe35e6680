"""`hashee-agent keys …`: makes, shows, saves and rotates the agent's keys and the store secret. Only `generate`, `bus` and `files` show a private one."""

from collections.abc import Mapping

import click

from supervisor.cli.lazy import LazyGroup

COMMANDS: Mapping[str, str] = {
    "generate": "supervisor.cli.keys.identity:generate",
    "show": "supervisor.cli.keys.identity:show",
    "bus": "supervisor.cli.keys.bus_key:bus",
    "files": "supervisor.cli.keys.bus_key:files",
    "backup": "supervisor.cli.keys.backup:backup",
    "restore": "supervisor.cli.keys.backup:restore",
    "rotate-prekeys": "supervisor.cli.keys.rotation:rotate_prekeys",
    "rotate-store": "supervisor.cli.keys.rotation:rotate_store",
}


@click.group(cls=LazyGroup, places=COMMANDS, short_help="Make, show, back up and rotate keys.")
def keys() -> None:
    """Make, show, back up, restore and rotate the agent's keys: docs/keys.md."""
