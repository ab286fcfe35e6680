"""`keys backup` and `keys restore`: saves identity keys and store secret in one file under a passphrase, and restores them.

With a wrong passphrase nothing is written. A restore never replaces a different file; with --force it keeps that under another name, since
a store never opens again without its secret.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from bus.settings.reader import SettingsError
from bus.settings.shared import AGENT_ID
from crypto.keystore import Keystore, encode_keystore, open_backup, seal_backup
from host.private_files import make_folder, write_new, write_over
from supervisor.cli.keys.telling import told
from supervisor.cli.passphrase import ask_passphrase
from supervisor.keeper.state_directory import make_private, take_lock
from supervisor.settings.key_settings import KeySettings, read_private_keys
from supervisor.settings.keystore_files import BackupContents, decode_contents, encode_contents
from supervisor.settings.secrets import STORE_SECRET_FILE, StoreSecretDamaged, load_store_secret
from supervisor.settings.table import KEYSTORE

MOST_BYTES = 1 << 20


@click.command(short_help="Save keys and store secret under a passphrase.")
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write the agent's private keys and the store secret to FILE, under a passphrase.

    The passphrase is asked for twice, or read from the file that HASHEE_BACKUP_PASSPHRASE_FILE names. Messages and sessions
    are not in it: they are in Redis, and the store secret opens them.
    """
    settings = KeySettings.from_environ(os.environ)
    found = read_private_keys(os.environ)
    store_secret = settings.store_key or load_store_secret(settings.state_dir)
    contents = BackupContents(Keystore(settings.agent_id, found.identity), store_secret)
    passphrase = ask_passphrase(settings.passphrase_file, confirm=True).reveal()
    with told():
        if file.exists():
            raise FileExistsError(0, "", str(file))
        write_new(file, seal_backup(encode_contents(contents), passphrase, os.urandom))
    click.echo(f"{file} holds the keys of agent {settings.agent_id}{' and the store secret' if store_secret else ''}")
    if store_secret is None:
        click.echo(
            "It holds no store secret, since there is none yet: make another one after the first start.", err=True
        )


@dataclass(frozen=True)
class _Target:
    """A file that a restore writes. `former`: its present contents."""

    path: Path
    data: bytes
    former: bytes | None

    @property
    def is_done(self) -> bool:
        return self.former == self.data

    @property
    def is_other(self) -> bool:
        return self.former is not None and self.former != self.data


@click.command(short_help="Bring keys and store secret back.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also in place of other keys, which are kept beside under another name.")
def restore(file: Path, force: bool) -> None:
    """Write keystore.json and the state directory's store secret from FILE. No agent may run on that state directory."""
    with told(), file.open("rb") as opened:
        sealed = opened.read(MOST_BYTES)
    environ = dict(os.environ)
    settings = None if not environ.get(AGENT_ID.name) else KeySettings.from_environ(environ)
    passphrase = ask_passphrase((settings or _without_agent(environ)).passphrase_file, confirm=False).reveal()
    with told():
        contents = decode_contents(open_backup(sealed, passphrase))
    agent_id = contents.keystore.agent_id
    if settings is None:
        settings = KeySettings.from_environ({**environ, AGENT_ID.name: agent_id})
    if settings.agent_id != agent_id:
        raise click.ClickException(
            f"{file} is of agent {agent_id}, and {AGENT_ID.name} names another; nothing was written"
        )
    _write(settings, contents, force=force)


def _write(settings: KeySettings, contents: BackupContents, *, force: bool) -> None:
    make_private(settings.state_dir)
    lock = take_lock(settings.state_dir, patience_seconds=0.0)
    try:
        with suppress(StoreSecretDamaged):  # which is what a restore is for
            load_store_secret(settings.state_dir)  # raises while a rotation is unfinished
        with told():
            targets = _targets(settings, contents)
            others = [str(target.path) for target in targets if target.is_other]
            if others and not force:
                raise click.ClickException(
                    f"{' and '.join(others)}: there is something else; nothing was written (--force)"
                )
            for target in targets:
                _put(target)
    finally:
        os.close(lock)
    click.echo(f"agent {settings.agent_id} is back; compare its fingerprint: hashee-agent keys show")
    if settings.redis_url is not None and contents.store_secret not in (None, settings.store_key):
        click.echo(f"With a Redis of your own, HASHEE_STORE_KEY is the base64 of {targets[-1].path}.", err=True)


def _targets(settings: KeySettings, contents: BackupContents) -> list[_Target]:
    secret = contents.store_secret
    if settings.keystore is None:
        raise SettingsError(KEYSTORE.name, KEYSTORE.expectation, missing=True)  # there is no home to put it into
    files = [(settings.keystore, encode_keystore(contents.keystore))]
    files += [] if secret is None else [(settings.state_dir / STORE_SECRET_FILE, secret.reveal())]
    return [_Target(path, data, path.read_bytes() if path.exists() else None) for path, data in files]


def _put(target: _Target) -> None:
    if target.is_done:
        click.echo(f"{target.path} is there already, the same")
        return
    make_folder(target.path.parent)
    if target.former is None:
        write_new(target.path, target.data)
    else:
        kept = target.path.with_name(f"{target.path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
        write_new(kept, target.former)
        write_over(target.path, target.data)
        click.echo(f"what was there is kept as {kept}")
    click.echo(f"{target.path} is written")


def _without_agent(environ: dict[str, str]) -> KeySettings:
    """Reads the settings without an agent's id, before it is known which agent the backup is of."""
    return KeySettings.from_environ({**environ, AGENT_ID.name: "00000000-0000-0000-0000-000000000000"})
