"""Shared by the backup commands: finds the key of a backup in the settings or on the terminal, parses fingerprints, shows counts."""

import os
import re

import click

from crypto.identity import FINGERPRINT_BYTES
from crypto.words import WORDS
from supervisor.backup.counts import BackupCounts
from supervisor.backup.reading import BackupKey
from supervisor.backup.settings import BackupSettings
from supervisor.cli.passphrase import ask_passphrase
from supervisor.settings.table import BACKUP_IDENTITY_FILE

NUMBER_OF = {word: number for number, word in enumerate(WORDS)}


def say_counts(counts: BackupCounts, *, err: bool = False) -> None:
    """Shows a line for each kind of thing in a backup."""
    for thing, count in counts.rows():
        click.echo(f"  {count:>9} {thing}", err=err)


class KeyOfBackup:
    """Finds the key of a backup once and keeps it, since a backup is read twice."""

    def __init__(self) -> None:
        self._settings = BackupSettings.from_environ(os.environ)
        self._found: BackupKey | None = None

    def __call__(self, is_passphrase: bool) -> BackupKey:
        """Returns the key. Raises SettingsError, click.ClickException."""
        if self._found is None:
            self._found = self._passphrase() if is_passphrase else self._identity()
        return self._found

    def _passphrase(self) -> BackupKey:
        return BackupKey(passphrase=ask_passphrase(self._settings.passphrase_file, confirm=False))

    def _identity(self) -> BackupKey:
        identities = self._settings.identities()
        if identities is None:
            raise click.ClickException(
                f"this backup is sealed to an age key: name the file with its private half by {BACKUP_IDENTITY_FILE.name}"
            )
        return BackupKey(identities=identities)


class Fingerprint(click.ParamType[bytes]):
    """The type of a fingerprint as `keys show` shows it: 32 hexadecimal digits, or 16 words; spaces do not count."""

    name = "fingerprint"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Parses it. Raises click.BadParameter."""
        text = str(value).strip().lower()
        digits = re.sub(r"[\s:]", "", text)
        if re.fullmatch(rf"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}", digits):
            return bytes.fromhex(digits)
        numbers = [NUMBER_OF.get(word, -1) for word in text.split()]
        if len(numbers) != FINGERPRINT_BYTES or -1 in numbers:
            self.fail("expected the 32 hexadecimal digits or the 16 words of `hashee-agent keys show`", param, ctx)
        return bytes(numbers)
