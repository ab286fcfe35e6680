"""`hashee-agent stop`: drains and ends the agent of this state directory, and waits until it has ended."""

import click
import msgspec

from bus.control.messages import Request
from supervisor.cli.control import accepted, ask
from supervisor.control.answers import Stopping


@click.command(short_help="Drain and end the agent that runs here.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
def stop(no_wait: bool) -> int:
    """Ask the agent to drain and to end: no new jobs, running ones finish, replies are sent. Waits for its end.

    A second `stop` changes nothing; a second TERM or Ctrl-C at the process itself ends it at once.
    """
    answers = ask(Request("stop"), patience_seconds=None)
    answer = accepted(next(answers, None))
    if no_wait:
        return 0
    seconds = msgspec.json.decode(answer.result, type=Stopping).at_most_seconds
    click.echo(f"draining, at most {seconds:.0f} s")
    for _ in answers:
        continue  # the agent has ended when the connection ends
    click.echo("stopped")
    return 0
