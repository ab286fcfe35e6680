"""`hashee-agent scale N`: changes the number of workers until the next start."""

import click
import msgspec

from bus.control.messages import Request
from supervisor.cli.control import ask_once
from supervisor.run.operator import Scaled


@click.command(short_help="Change the number of workers.")
@click.argument("workers", metavar="N|MIN:MAX")
def scale(workers: str) -> int:
    """Run N workers, or as many from MIN to MAX as the waiting jobs need. One that goes finishes its jobs first.

    It holds until the agent is started again; HASHEE_WORKERS is the number that it starts with.
    """
    answer = ask_once(Request("scale", workers=workers))
    click.echo(f"workers: {msgspec.json.decode(answer.result, type=Scaled).workers}")
    return 0
