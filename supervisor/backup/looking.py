"""What `backup verify` does with each piece of a backup, and a restore before it begins: it is counted and opened, and nothing is kept."""

from bus.records.saved import Saved
from supervisor.backup.checking import Checking
from supervisor.backup.contents import Manifest
from supervisor.backup.counts import BackupCounts
from supervisor.backup.errors import BackupDamaged
from supervisor.settings.secrets import Secret


class Inspection:
    """BackupCounts and opens what passes, of a backup that is only read."""

    def __init__(self) -> None:
        self.counts = BackupCounts()
        self.checking: Checking | None = None

    def begin(self, manifest: Manifest, store_secret: Secret[bytes]) -> None:
        """See reading.Visitor."""
        self.checking = Checking(manifest.agent_id, store_secret)

    def take(self, piece: Saved) -> None:
        """See reading.Visitor. Raises BackupDamaged: whoever can seal and sign one can write anything into it."""
        try:
            self._look(piece)
        except (ValueError, OverflowError):
            raise BackupDamaged("a value in the backup is not of the form that this program writes") from None

    def _look(self, piece: Saved) -> None:
        self.counts.add(piece)
        if self.checking is not None:
            self.checking.look(piece)
