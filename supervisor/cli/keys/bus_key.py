"""`keys bus`: shows the bus key, the only key that workers on other hosts need. It never makes a store secret."""

import base64
import os

import click

from bus.records.sealing import StoreKeys
from bus.settings.shared import BUS_KEY
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import STORE_SECRET_FILE, load_store_secret


@click.command(short_help="Print the bus key for workers elsewhere.")
def bus() -> None:
    """Print the line HASHEE_BUS_KEY=… that `hashee-agent worker` on another host needs.

    It comes from the store secret: HASHEE_STORE_KEY, else the state directory's. With it a worker reads jobs and writes
    replies; it opens no session and no identity. After `keys rotate-store` it is another one.
    """
    settings = KeySettings.from_environ(os.environ)
    secret = settings.store_key or load_store_secret(settings.state_dir)
    if secret is None:
        raise click.ClickException(
            f"{settings.state_dir / STORE_SECRET_FILE} is not there yet and HASHEE_STORE_KEY is not set; "
            "the first start of `hashee-agent up` makes it"
        )
    key = StoreKeys.derive(secret.reveal()).bus
    click.echo(f"{BUS_KEY.name}={base64.b64encode(key.export()).decode()}")
