"""`hashee-agent upgrade`: replaces the running code by the code on disk, without a moment unconnected."""

import click

from bus.control.messages import Request
from supervisor.cli.control import ask_once


@click.command(short_help="Start the code that is on disk now; the running one leaves when it serves.")
@click.option("--wait", is_flag=True, help="Wait until the old one has left; status 1, with the reason, if it goes on.")
def upgrade(wait: bool) -> int:
    """Start a new supervisor and new workers beside those that run; when they are ready and connected, the old ones leave.

    If the new ones do not serve within 60 s they are ended and the old ones go on. Redis, the status page and the main pid stay:
    new code of the main process itself comes with the next restart. The same as USR2 to the main process.
    """
    ask_once(Request("upgrade", wait=wait))
    click.echo("upgraded" if wait else "the upgrade has begun; hashee-agent status shows how it goes")
    return 0
