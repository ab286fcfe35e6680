"""`keys bus` and `keys files`: show what workers, and a file gate, on other hosts need. They never make a store secret."""

import base64
import os

import click

from bus.files.proofs import FilesKey
from bus.records.sealing import StoreKeys
from bus.settings.shared import BUS_KEY
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import STORE_SECRET_FILE, load_store_secret
from supervisor.settings.table import FILES_KEY


@click.command(short_help="Print the bus key for workers elsewhere.")
def bus() -> None:
    """Print the line HASHEE_BUS_KEY=… that `hashee-agent worker` on another host needs.

    It comes from the store secret: HASHEE_STORE_KEY, else the state directory's. With it a worker reads jobs and writes
    replies; it opens no session and no identity. After `keys rotate-store` it is another one.
    """
    click.echo(f"{BUS_KEY.name}={base64.b64encode(_bus_key()).decode()}")


@click.command(short_help="Print the key for a file gate elsewhere.")
def files() -> None:
    """Print the line HASHEE_FILES_KEY=… that `hashee-agent files` on another host than the supervisor's needs.

    It comes from the bus key. Whoever has it may have the gate pass files; it opens nothing. After `keys rotate-store` it is another one.
    """
    click.echo(f"{FILES_KEY.name}={base64.b64encode(FilesKey.of_bus_key(_bus_key()).export()).decode()}")


def _bus_key() -> bytes:
    settings = KeySettings.from_environ(os.environ)
    secret = settings.store_key or load_store_secret(settings.state_dir)
    if secret is None:
        raise click.ClickException(
            f"{settings.state_dir / STORE_SECRET_FILE} is not there yet and HASHEE_STORE_KEY is not set; "
            "the first start of `hashee-agent up` makes it"
        )
    return StoreKeys.derive(secret.reveal()).bus.export()
