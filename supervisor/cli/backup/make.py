"""`backup FILE|-`: makes a backup while the agent runs, or starts its private Redis for it."""

import io
import os
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import click
import trio

from bus.transport.wire import RedisFailed
from crypto.keystore import Keystore, KeystoreError, fingerprint_hex
from supervisor.backup.counts import BackupCounts
from supervisor.backup.envelope import BadRecipient, Lock, Sink
from supervisor.backup.files import keep_newest, named_in, whole_file
from supervisor.backup.making import Making, StoreChanged, UnknownKinds
from supervisor.backup.settings import BackupSettings
from supervisor.backup.stream import FrameTooLarge
from supervisor.cli.backup.opening import say_counts
from supervisor.cli.keys.telling import told
from supervisor.cli.passphrase import ask_passphrase
from supervisor.cli.store import REFUSALS, open_store
from supervisor.settings.key_settings import KeySettings, read_private_keys

STANDARD_OUTPUT = "-"


TELL_SECONDS = 3.0
"""Between two lines about how much of a large backup is written."""


class _Telling:
    """Passes a backup on to where it goes, and says on stderr how much of it there is."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written_bytes = 0
        self._told_at = time.monotonic()

    def write(self, data: bytes, /) -> int:
        """Writes; see `Sink`."""
        written = self._sink.write(data)
        self._written_bytes += len(data)
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            with suppress(OSError):  # a backup is worth more than a word about it
                click.echo(f"{self._written_bytes / 1e6:.0f} MB written so far", err=True)
        return written

    def flush(self) -> None:
        """See `Sink`."""
        self._sink.flush()


class _Made(NamedTuple):
    """A backup that was made. `not_noted`: why it could not be noted in Redis."""

    place: str
    counts: BackupCounts
    not_noted: str = ""


@click.command("make", short_help="Save the whole state (backup FILE).")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    metavar="AGE1…",
    help="An age public key that may open it (HASHEE_BACKUP_RECIPIENTS); may be given several times.",
)
@click.option(
    "--keep", type=click.IntRange(1), help="With a folder as FILE: delete all but the newest N backups in it."
)
def make(file: Path, recipients: tuple[str, ...], keep: int | None) -> None:
    """Write the agent's whole state to FILE (- for standard output; into a folder under a name with the time).

    It is sealed to --recipient or HASHEE_BACKUP_RECIPIENTS, else under a passphrase: asked for, or out of the file that
    HASHEE_BACKUP_PASSPHRASE_FILE names. The agent signs it. It may run meanwhile.
    """
    settings = KeySettings.from_environ(os.environ)
    keystore = Keystore(settings.agent_id, read_private_keys(os.environ).identity)
    if keep is not None and not file.is_dir():
        raise click.UsageError("--keep deletes old backups in a folder: name one as FILE, or leave --keep out")
    path = named_in(file, settings.agent_id) if file.is_dir() else file
    with told(*REFUSALS, StoreChanged, UnknownKinds, FrameTooLarge, BadRecipient):
        lock = _lock(recipients)
        made = trio.run(_make, keystore, lock, None if str(file) == STANDARD_OUTPUT else path.absolute())
        gone = [] if keep is None else keep_newest(file, settings.agent_id, keep, path.name)
    _say(made, keystore, gone)


def _say(made: _Made, keystore: Keystore, gone: list[Path]) -> None:
    """Tells the result on stderr, since stdout may be the backup."""
    click.echo(f"{made.place} holds agent {keystore.agent_id}", err=True)
    say_counts(made.counts, err=True)
    fingerprint = fingerprint_hex(keystore.identity.public.fingerprint(keystore.agent_id))
    click.echo(f"signed by {fingerprint}; note it elsewhere: a restore asks for it", err=True)
    for path in gone:
        click.echo(f"deleted {path}", err=True)
    if made.not_noted:
        said = f"the backup is whole; that it was made could not be noted in Redis ({made.not_noted}): "
        click.echo(f"{said}status and doctor tell the age of the one before", err=True)


def _standard_output() -> io.BufferedWriter:
    output = sys.stdout.buffer
    if output.isatty():
        raise click.UsageError("a backup is no text for a terminal: name a file, or pipe it on")
    if not isinstance(output, io.BufferedWriter):
        raise click.UsageError("standard output takes no bytes: name a file")
    return output


def _lock(recipients: tuple[str, ...]) -> Lock:
    settings = BackupSettings.from_environ(os.environ)
    if recipients or settings.recipients:
        return Lock.for_recipients(recipients or settings.recipients)
    try:
        return Lock.under_passphrase(ask_passphrase(settings.passphrase_file, confirm=True))
    except KeystoreError as problem:
        raise click.ClickException(str(problem)) from None


async def _make(keystore: Keystore, lock: Lock, path: Path | None) -> _Made:
    """Makes the backup, to standard output without a path, and then notes it in Redis.

    A backup that cannot be noted, since Redis takes no writes, is valid all the same.
    """
    place = "standard output" if path is None else str(path)
    async with open_store() as store:
        making = Making(store.client, store.names, keystore, store.secret)
        with nullcontext(_standard_output()) if path is None else whole_file(path) as sink:
            counts = await making.write(lock, _Telling(sink))
        try:
            await making.note(lock, place)
        except RedisFailed as problem:
            return _Made(place, counts, str(problem))
    return _Made(place, counts)
