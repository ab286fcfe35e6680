"""Counts and opens each piece of a backup without keeping it, for `backup verify` and for a restore before it begins."""

from bus.records.saved import Saved
from supervisor.backup.checking import Checking
from supervisor.backup.contents import Manifest
from supervisor.backup.counts import BackupCounts
from supervisor.backup.errors import BackupDamaged
from supervisor.settings.secrets import Secret


class Inspection:
    """The visitor that counts and opens the pieces of a backup."""

    def __init__(self) -> None:
        self.counts = BackupCounts()
        self.checking: Checking | None = None

    def begin(self, manifest: Manifest, store_secret: Secret[bytes]) -> None:
        """See reading.Visitor."""
        self.checking = Checking(manifest.agent_id, store_secret)

    def take(self, piece: Saved) -> None:
        """See reading.Visitor. Raises BackupDamaged: anybody with the keys to seal and sign can have written anything into it."""
        try:
            self._look(piece)
        except (ValueError, OverflowError):
            raise BackupDamaged("a value in the backup is not of the form that this program writes") from None

    def _look(self, piece: Saved) -> None:
        self.counts.add(piece)
        if self.checking is not None:
            self.checking.look(piece)
