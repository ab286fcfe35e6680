"""Counts and opens each piece of a backup without keeping it, for `backup verify` and for a restore before it begins."""

from bus.records.saved import SAVED_AS_VALUES, Saved, Value
from supervisor.backup.checking import Checking
from supervisor.backup.contents import Manifest
from supervisor.backup.counts import BackupCounts
from supervisor.backup.errors import BackupDamaged, NewerBackup
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
        """See reading.Visitor. Raises BackupDamaged: anybody with the keys to seal and sign can have written anything into it.

        Raises NewerBackup for what a restore by this version would pass over.
        """
        if isinstance(piece, Value) and piece.kind not in SAVED_AS_VALUES:
            raise NewerBackup(
                f"the backup holds what this version of hashee-agent would not bring back ({piece.kind!a:.40}): "
                "restore it with the version that made it, or a later one"
            )
        try:
            self._look(piece)
        except (ValueError, OverflowError):
            raise BackupDamaged("a value in the backup is not of the form that this program writes") from None

    def _look(self, piece: Saved) -> None:
        self.counts.add(piece)
        if self.checking is not None:
            self.checking.look(piece)
