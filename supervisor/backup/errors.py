"""What can be wrong with a backup. Every text says what helps, and holds nothing of a backup's content nor of a key."""


class BackupUnusable(Exception):
    """This backup is not taken; nothing was changed."""


class NoBackup(BackupUnusable):
    """The file is something else."""


class BackupDamaged(BackupUnusable):
    """It is cut short, or its bytes have changed."""


class WrongKey(BackupUnusable):
    """It does not open with the passphrase or the identities that were given."""


class WrongAuthor(BackupUnusable):
    """Another agent than the one that was named has made it."""


class NewerBackup(BackupUnusable):
    """A later version of this program wrote it."""
