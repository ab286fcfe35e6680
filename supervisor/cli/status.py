"""`hashee-agent status`: shows what the agent of this state directory is doing, for people or as JSON."""

import click
import msgspec
from rich.console import Console

from bus.control.messages import ControlAnswer, Request
from supervisor.cli.control import accepted, ask
from supervisor.cli.status_page import page

EVERY_SECONDS = 1.0


@click.command(short_help="Show what the agent that runs here is doing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one a line.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> int:
    """Show connection, work, workers, Redis and what waits for a decision. Ends with 1 when no agent runs here."""
    console = Console(highlight=False)
    for answer in ask(Request("status", every_seconds=EVERY_SECONDS if watch else None)):
        _show(accepted(answer), console, as_json=as_json, clear=watch)
        if not watch:
            return 0
    return accepted(None).ok


def _show(answer: ControlAnswer, console: Console, *, as_json: bool, clear: bool) -> None:
    if as_json:
        click.echo(bytes(answer.result).decode())
        return
    if clear and console.is_terminal:
        console.clear()
    console.print(page(msgspec.json.decode(answer.result)))
