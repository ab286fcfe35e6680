"""`hashee-agent restore FILE`: restores a backup, while no agent runs."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import trio

from bus.records.keys import Keys
from bus.settings.reader import SettingsReader
from bus.transport.client import open_redis
from bus.whole.restore_switch import RestoreSwitch
from supervisor.backup import switching
from supervisor.backup.envelope import BadIdentities
from supervisor.backup.errors import BackupUnusable
from supervisor.backup.restoring import Restore, Restored, RestoreRefused, Wishes, finish_given
from supervisor.cli.backup.opening import Fingerprint, KeyOfBackup, say_counts
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS
from supervisor.keeper.state_directory import make_private, take_lock
from supervisor.settings.key_settings import KeySettings, read_private_keys
from supervisor.settings.secrets import RestoreUnfinished
from supervisor.settings.table import ED25519_PRIVATE, X25519_PRIVATE

STANDARD_INPUT = "-"


@click.command(short_help="Bring back what `backup` has saved.")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--fingerprint", type=Fingerprint(), help="Of the agent that must have made it, as you have noted it.")
@click.option(
    "--over-newer-store", is_flag=True, help="Although the store that is there is newer, or cannot be looked at."
)
@click.option(
    "--store-key-file",
    type=click.Path(path_type=Path),
    metavar="NEW_FILE",
    help="Where the backup's store secret is written, for HASHEE_STORE_KEY_FILE.",
)
@click.option("--finish", is_flag=True, help="Complete a restore that was interrupted.")
def restore(
    file: Path | None, fingerprint: bytes | None, *, over_newer_store: bool, store_key_file: Path | None, finish: bool
) -> None:
    """Bring back the whole state from FILE (- for standard input): keys, grants, sessions, what waits, dead letters, quarantine, history.

    FILE is read and proven to its end first; then the new state is prepared beside the old one, and takes its place in one step. Of
    the private Redis the old one is kept in the state directory, in before-restore-…. A supervisor or worker may not run.
    """
    settings = KeySettings.from_environ(os.environ)
    with told(*REFUSALS, BackupUnusable, BadIdentities, RestoreRefused):
        if finish:
            click.echo(_finish(settings))
            return
        if file is None or fingerprint is None:
            raise click.UsageError("name the backup, and by --fingerprint the agent that must have made it")
        make_private(settings.state_dir)
        with _source(file, settings.state_dir) as source:
            restoring = Restore(settings, _identity_given(settings), source, KeyOfBackup())
            wishes = Wishes(fingerprint, over_newer_store, store_key_file)
            proven = restoring.prove(wishes)
            lock = take_lock(settings.state_dir, patience_seconds=0.0)
            try:
                if switching.is_decided(settings.state_dir):
                    raise RestoreUnfinished
                restored = trio.run(restoring.run, proven, wishes, lock)
            finally:
                os.close(lock)
    _say(settings, restored, store_key_file)


def _say(settings: KeySettings, restored: Restored, store_key_file: Path | None) -> None:
    click.echo(f"agent {settings.agent_id} is back as it was at {restored.made}:")
    say_counts(restored.counts)
    if restored.unreadable:
        click.echo(f"{restored.unreadable} values did not open before either (backup verify tells which)", err=True)
    if restored.aside is not None:
        click.echo(f"what was there is kept in {restored.aside}; delete it when you are sure")
    if store_key_file is not None:
        click.echo(f"HASHEE_STORE_KEY_FILE has to be {store_key_file.absolute()} from now on")
    for line in NOTICED:
        click.echo(line)


NOTICED = (
    "What people notice: mostly nothing; what they write before their client has taken up a new session cannot be read. What came since the backup is asked",
    "for at the relay once more: what can be read is answered, under the ids that the relay knows, so that nothing is shown twice; what cannot be read",
    "stands in quarantine. Decisions about grants that were made since are forgotten: hashee-agent grants list --all. Workers elsewhere: restart them.",
)


def _finish(settings: KeySettings) -> str:
    """Completes or cleans up an interrupted restore; returns a text about it."""
    done = switching.after_interruption(settings.state_dir) if settings.state_dir.is_dir() else None
    if done is not None:
        return done.text
    if settings.redis_url is not None and (said := trio.run(_finish_given, settings.redis_url.reveal(), settings)):
        return said
    return "there is no restore to complete; the state is as it was"


async def _finish_given(url: str, settings: KeySettings) -> str:
    """Does the same for an operator's Redis, even beside a running restore, which then goes on or learns that it was given up."""
    names = Keys(settings.agent_id)
    async with open_redis(url) as client:
        switch = RestoreSwitch(client, names)
        if await switch.give_up():
            return "an interrupted restore had not been decided: the state is the one before it"
        if not await switch.is_decided():
            return ""
        await finish_given(client, names, settings.state_dir)
        return "an interrupted restore was completed: the state is that of the backup"


def _identity_given(settings: KeySettings) -> bytes | None:
    """Returns the public pair of the present keys, None without any."""
    reader = SettingsReader(os.environ)
    is_given = any(reader.is_given(setting) for setting in (X25519_PRIVATE, ED25519_PRIVATE))
    if not is_given and (settings.keystore is None or not settings.keystore.exists()):
        return None
    return read_private_keys(os.environ).identity.public.pair


@contextmanager
def _source(file: Path, state_dir: Path) -> Iterator[BinaryIO]:
    """Gives a file that can be read twice: standard input is copied, still sealed, into a file without a name."""
    if str(file) != STANDARD_INPUT:
        with file.open("rb") as opened:
            yield opened
        return
    try:
        with tempfile.TemporaryFile(dir=state_dir) as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            yield copy
    except OSError as problem:
        if problem.filename is None:  # a write, as on a full disk
            problem.filename = str(state_dir)
        raise
