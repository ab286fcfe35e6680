"""`hashee-agent healthcheck`: asks the status page of this host once, for container health checks."""

import os
from http.client import HTTPConnection, HTTPException

import click

from supervisor.settings.keeper import http_address

TIMEOUT_SECONDS = 5.0
HTTP_OK = 200
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # not bound to, but replaced


@click.command(short_help="Ask the status page whether all is well.")
@click.option("--live", is_flag=True, help="Ask /healthz (our own loops turn) instead of /readyz (the path works).")
def healthcheck(live: bool) -> int:
    """Ask the status page of this host. Ends with 0 when it is well, 1 when not, and prints the reason."""
    host, port = http_address(os.environ)
    connection = HTTPConnection(ANY_ADDRESS.get(host, host), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz" if live else "/readyz")
        answer = connection.getresponse()
        text = answer.read(4096).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as problem:
        click.echo(f"no answer: {problem}")
        return 1
    finally:
        connection.close()
    click.echo(text)
    return 0 if answer.status == HTTP_OK else 1
