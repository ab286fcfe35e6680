"""Reads the passphrase of a backup from the file that HASHEE_BACKUP_PASSPHRASE_FILE names, else from the terminal, never from an argument."""

import os
import unicodedata
from pathlib import Path

import click

from supervisor.backup.settings import unreadable
from supervisor.settings.secrets import Secret
from supervisor.settings.table import BACKUP_PASSPHRASE_FILE


def ask_passphrase(file: Path | None, *, confirm: bool) -> Secret[str]:
    """Returns the passphrase. `confirm`: a terminal asks twice. Raises SettingsError, click.ClickException."""
    if file is None:
        _refuse_without_terminal()
        text: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as problem:
            raise unreadable(BACKUP_PASSPHRASE_FILE, problem) from None
    return Secret(unicodedata.normalize("NFC", text))  # keyboards differ in how they encode the same letter


def _refuse_without_terminal() -> None:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        raise click.ClickException(
            f"there is no terminal to ask for the passphrase on: name a file by {BACKUP_PASSPHRASE_FILE.name}"
        ) from None
