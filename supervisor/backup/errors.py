"""The faults of a backup. No text holds anything of a backup's content or of a key."""


class BackupUnusable(Exception):
    """This backup cannot be used; nothing was changed."""


class NoBackup(BackupUnusable):
    """The file is something else."""


class BackupDamaged(BackupUnusable):
    """It is truncated, or its bytes have changed."""


class WrongKey(BackupUnusable):
    """It does not open with the passphrase or the identities that were given."""


class WrongAuthor(BackupUnusable):
    """It was made by another agent than the one that was named."""


class NewerBackup(BackupUnusable):
    """A later version of this program wrote it."""
