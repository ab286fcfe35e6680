"""The settings of what seals and what opens a backup. They are used on hosts without an agent too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings.places import absolute_path
from bus.settings.reader import Malformed, Setting, SettingsError, SettingsReader
from supervisor.backup.envelope import BadIdentities, BadRecipient, Lock, check_identities
from supervisor.settings.backup_age import BACKUP_RECIPIENTS
from supervisor.settings.secrets import Secret
from supervisor.settings.table import BACKUP_IDENTITY_FILE, BACKUP_PASSPHRASE_FILE

MOST_IDENTITY_FILE_BYTES = 65_536


@dataclass(frozen=True)
class BackupSettings:
    """The settings. `recipients`: age public keys, empty for a passphrase."""

    recipients: tuple[str, ...]
    passphrase_file: Path | None
    identity_file: Path | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "BackupSettings":
        """Reads them. Raises SettingsError."""
        reader = SettingsReader(environ)
        settings = cls(
            recipients=reader.optional(BACKUP_RECIPIENTS, recipients) or (),
            passphrase_file=reader.optional(BACKUP_PASSPHRASE_FILE, absolute_path),
            identity_file=reader.optional(BACKUP_IDENTITY_FILE, absolute_path),
        )
        reader.finish()
        return settings

    def identities(self) -> Secret[str] | None:
        """Returns the text of the identity file; None if none is named. Raises SettingsError, which quotes nothing of it."""
        if self.identity_file is None:
            return None
        try:
            with self.identity_file.open(encoding="utf-8") as file:
                text = Secret(file.read(MOST_IDENTITY_FILE_BYTES))
            check_identities(text)
        except (OSError, UnicodeDecodeError) as problem:
            raise unreadable(BACKUP_IDENTITY_FILE, problem) from None
        except BadIdentities as problem:
            raise SettingsError(
                BACKUP_IDENTITY_FILE.name, f"a file of age-keygen, and this one holds {problem}"
            ) from None
        return text


def unreadable(setting: Setting, problem: OSError | UnicodeDecodeError) -> SettingsError:
    """Returns the error of a setting that names a file which could not be read as text; it quotes nothing of the file."""
    fault = problem.strerror if isinstance(problem, OSError) else "it is not in UTF-8"
    return SettingsError(setting.name, f"the path of a text file that this user can read ({fault})")


def recipients(text: str) -> tuple[str, ...]:
    """Parses age public keys with commas between them. Raises Malformed."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        Lock.for_recipients(found)
    except BadRecipient:
        raise Malformed from None
    return found
