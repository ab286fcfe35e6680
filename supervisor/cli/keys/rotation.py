"""`keys rotate-prekeys`, which asks the running supervisor, and `keys rotate-store`, which works while none runs."""

import os
from functools import partial
from pathlib import Path

import click
import trio

from bus.records.keys import Keys
from bus.steps.prekey_wish import PrekeyWish
from bus.steps.seal import StoreSealed
from bus.transport.client import open_redis
from bus.transport.wire import RedisFailed
from supervisor.cli.keys.telling import told
from supervisor.keeper.redis_server import RedisDoesNotStart
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import STORE_SECRET_FILE, read_store_secret
from supervisor.store.access import NoStore, private_redis, reach_store, rewrite_and_sync, who_is_connected
from supervisor.store.rotation import InNamedFile, InStateDirectory, Rotated, RotationRefused, StoreRotation

ANSWER_SECONDS = 15.0  # a supervisor that has just published prekeys pauses before it publishes again
POLL_SECONDS = 0.1
REFUSALS = (StoreSealed, RotationRefused, NoStore, RedisDoesNotStart, RedisFailed)


@click.command("rotate-prekeys", short_help="Replace the signed prekey now.")
def rotate_prekeys() -> None:
    """Have the supervisor make a new signed prekey now and not only after a week.

    One that runs does it within seconds; otherwise the next one does it first of all. What people began with the former
    prekey stays readable for 30 days.
    """
    settings = KeySettings.from_environ(os.environ)
    with told(*REFUSALS):
        made = trio.run(_ask_for_prekey, settings)
    if made is None:
        click.echo("noted: no supervisor has answered yet, the next one makes a new signed prekey first of all")
    else:
        click.echo(f"signed prekey {made} is made and goes to the relay")


async def _ask_for_prekey(settings: KeySettings) -> int | None:
    async with reach_store(settings) as url, open_redis(url) as client:
        wish = PrekeyWish(client, Keys(settings.agent_id))
        through = await wish.ask()
        if await client.command("EXISTS", Keys(settings.agent_id).reclaimer) != 1:
            return None
        with trio.move_on_after(ANSWER_SECONDS):
            while True:
                newest = await wish.newest()
                if newest > through:
                    return newest
                await trio.sleep(POLL_SECONDS)
    return None


@click.command("rotate-store", short_help="Seal the store under a new secret.")
@click.option(
    "--new-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the new HASHEE_STORE_KEY is written, when the present one is given from outside.",
)
@click.option(
    "--force", is_flag=True, help="Although a supervisor or worker seems to be connected to a Redis of your own."
)
@click.option("--leave-unreadable", is_flag=True, help="Although some values do not open; they stay as they are.")
def rotate_store(new_key_file: Path | None, force: bool, leave_unreadable: bool) -> None:
    """Seal everything in Redis under a new store secret and forget the old one, while no supervisor and no worker runs.

    It may be killed at any moment: until it has been run to its end, both secrets are kept and nothing starts.
    """
    settings = KeySettings.from_environ(os.environ)
    if (settings.store_key is None) != (new_key_file is None):
        raise click.UsageError(
            "--new-key-file is for a HASHEE_STORE_KEY that is given from outside"
            if settings.store_key is None
            else "HASHEE_STORE_KEY is given from outside: name a file for the new one with --new-key-file"
        )
    with told(*REFUSALS):
        run = partial(_rotate, settings, new_key_file, force=force, leave_unreadable=leave_unreadable)
        rotated = trio.run(run)
    click.echo(f"{rotated.values} values are sealed under a new store secret (key epoch {rotated.key_epoch})")
    if rotated.unreadable:
        click.echo(f"{rotated.unreadable} opened with neither secret and stay as they were", err=True)
    if new_key_file is None:
        click.echo("the old one is forgotten; a backup made before opens this store no more: make another one")
    else:
        click.echo(f"put the new one into HASHEE_STORE_KEY of every supervisor before you start them: {new_key_file}")
    click.echo("workers elsewhere need the new bus key: hashee-agent keys bus")


async def _rotate(settings: KeySettings, new_key_file: Path | None, *, force: bool, leave_unreadable: bool) -> Rotated:
    names = Keys(settings.agent_id)
    if settings.redis_url is None:
        async with private_redis(settings) as layout, open_redis(layout.url) as client:
            rotation = _rotation(settings, new_key_file)
            durable = partial(rewrite_and_sync, client, layout)
            return await rotation.run(client, names, make_durable=durable, leave_unreadable=leave_unreadable)
    async with open_redis(settings.redis_url.reveal()) as client:
        if not force and (someone := await who_is_connected(client, names)):
            raise RotationRefused(f"{someone} is connected: end every supervisor and worker first (or --force)")
        rotation = _rotation(settings, new_key_file)
        return await rotation.run(client, names, make_durable=_left_to_its_owner, leave_unreadable=leave_unreadable)


def _rotation(settings: KeySettings, new_key_file: Path | None) -> StoreRotation:
    if settings.store_key is not None and new_key_file is not None:
        return StoreRotation(settings.store_key, InNamedFile(new_key_file, settings.store_key))
    path = settings.state_dir / STORE_SECRET_FILE
    secret = read_store_secret(path)
    if secret is None:
        raise NoStore(f"{path} is not there yet; the first start makes it")
    return StoreRotation(secret, InStateDirectory(settings.state_dir))


async def _left_to_its_owner() -> None:
    """Does nothing: when an operator's Redis writes to its disk, and rewrites its files, is the operator's business (docs/keys.md)."""
