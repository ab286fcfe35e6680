"""A backup that an older version made is brought back: one of format 1 is kept in tests/vectors, and every later version has to read it."""

import io
from pathlib import Path

from bus.records.keys import Keys
from bus.records.saved import Saved
from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from bus.whole.restoring import Restoring
from supervisor.backup.contents import Manifest
from supervisor.backup.looking import Inspection
from supervisor.backup.reading import BackupKey, read_backup
from supervisor.settings.secrets import Secret
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.builders import loose_ends, opened
from tests.supervisor.settings.environment import AGENT_ID

FILE = Path(__file__).parents[2] / "vectors" / "backup_v1.age"
IDENTITY = "AGE-SECRET-KEY-1VKR4TWZM4Z3QWYP70J7EPEW6CSUR2NHTKAGEWRPRASLH0FH33R2SRWQ0EG"  # of this file alone
FINGERPRINT = bytes.fromhex("02118695ce3c7ea2f8a898eb9495e843")
NAMES = Keys(AGENT_ID)


class Kept(Inspection):
    """Its pieces too, of a backup as small as this one."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Saved] = []
        self.secret = Secret(b"")

    def begin(self, manifest: Manifest, store_secret: Secret[bytes]) -> None:
        super().begin(manifest, store_secret)
        self.secret = store_secret

    def take(self, piece: Saved) -> None:
        super().take(piece)
        self.pieces.append(piece)


async def test_a_backup_of_version_1_comes_back(tmp_path: Path) -> None:
    kept = Kept()
    key = BackupKey(identities=Secret(IDENTITY))
    read_backup(io.BytesIO(FILE.read_bytes()), lambda _: key, kept, FINGERPRINT)
    assert kept.checking is not None
    assert (dict(kept.checking.unreadable), kept.checking.chain_holds) == ({}, True)
    counts = dict(kept.counts.rows())
    assert (counts["people"], counts["jobs that wait"], counts["replies that wait"], counts["dead letters"]) == (
        2,
        13,
        6,
        3,
    )
    keys = kept.checking.keys
    assert keys is not None
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            restoring = Restoring(client, NAMES, keys.state, place=NAMES.of)
            for piece in kept.pieces:
                await restoring.take(piece)
            await restoring.finish()
            found = await opened(client, await StoreSeal(client, NAMES).adopt(kept.secret.reveal()))
            assert await loose_ends(client) == []
    assert found["jobs"] == ["message 1 in answered", "message 1 in busy", "message 2 in dead"]
    assert restoring.unreadable_prekeys == 0
    assert found["restored signed"] == {1: b"signed prekey"}
