"""The faults of a backup. Every text says what helps; none holds anything of a backup's content or of a key."""


class BackupUnusable(Exception):
    """This backup cannot be used; nothing was changed."""


class NoBackup(BackupUnusable):
    """The file is something else."""


class BackupDamaged(BackupUnusable):
    """It is truncated, or its bytes have changed. `fault`: what was found."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}; take another copy of it, or another backup")


class WrongKey(BackupUnusable):
    """It does not open with the passphrase or the identities that were given."""


class WrongAuthor(BackupUnusable):
    """It was made by another agent than the one that was named."""


class NewerBackup(BackupUnusable):
    """A later version of this program wrote it."""
