"""`hashee-agent mcp`, as a coding agent or a script starts it."""

import os
import signal

import click

from bus.control.client import Control
from bus.settings.reader import SettingsError

EXTRA = "pip install 'hashee-agent[mcp]'"


@click.command(short_help="Let a program on this host say and ask things, by MCP.")
def mcp() -> None:
    """Serve the Model Context Protocol on stdin and stdout, for a program on this host such as a coding agent.

    \b
    It can send a message, ask a person (and wait for the answer) and list
    conversations: those that HASHEE_MCP_CONVERSATIONS of the running agent names,
    none by default. Which agent: HASHEE_AGENT_ID, and HASHEE_STATE_DIR where the
    agent has one. docs/mcp.md
    """
    try:
        control = Control.of(os.environ)
    except SettingsError as problem:
        raise click.ClickException(f"{problem}: it says which agent is meant") from None
    try:
        from supervisor.cli.mcp.server import serve  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise click.ClickException(f"the package mcp is not installed, which this command needs: {EXTRA}") from None
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # it has nothing to take apart, and reads stdin in a thread that nothing else ends
    serve(control)
