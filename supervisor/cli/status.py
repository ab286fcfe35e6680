"""`hashee-agent status`: what the agent of this state directory is doing, for a person or as JSON."""

import click

from supervisor.cli.control import accepted, ask
from supervisor.control_socket import Request

EVERY_SECONDS = 1.0


@click.command(short_help="Show what the agent that runs here is doing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one a line.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> int:
    """Show connection, work, workers, Redis and what waits for a decision. Ends with 1 when no agent runs here."""
    for answer in ask(Request("status", every_seconds=EVERY_SECONDS if watch else None)):
        click.echo(bytes(accepted(answer).result).decode() if as_json else bytes(accepted(answer).result))
        if not watch:
            return 0
    return accepted(None).ok
