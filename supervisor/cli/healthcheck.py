"""`hashee-agent healthcheck`: asks the status page of this host once, for container health checks."""

import os
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection

import click

from supervisor.settings.files import files_address
from supervisor.settings.keeper import http_address

TIMEOUT_SECONDS = 5.0
HTTP_OK = 200
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # not bound to, but replaced


@click.command(short_help="Ask the status page whether all is well.")
@click.option("--live", is_flag=True, help="Ask /healthz (our own loops turn) instead of /readyz (the path works).")
@click.option("--files", is_flag=True, help="Ask a file gate by itself, not a supervisor.")
def healthcheck(live: bool, files: bool) -> int:
    """Ask the status page of this host. Ends with 0 when it is well, 1 when not, and prints the reason."""
    connection = _gate() if files else _supervisor()
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


def _supervisor() -> HTTPConnection:
    host, port = http_address(os.environ)
    return HTTPConnection(ANY_ADDRESS.get(host, host), port, timeout=TIMEOUT_SECONDS)


def _gate() -> HTTPConnection:
    host, port, has_tls = files_address(os.environ)
    at = ANY_ADDRESS.get(host, host)
    if not has_tls:
        return HTTPConnection(at, port, timeout=TIMEOUT_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is asked from this host whether it lives, and is told nothing
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(at, port, timeout=TIMEOUT_SECONDS, context=context)
