"""A backup of a store as tests make one, in memory, and what opens it."""

import io
import os

import pyrage  # type: ignore[import-untyped]
import pytest
import redis

from bus.records.keys import Keys
from bus.steps.seal import StoreSeal
from bus.transport.client import RedisClient
from bus.transport.wire import RedisFailed
from crypto.identity import IdentityKeys
from crypto.keystore import Keystore
from supervisor.backup.envelope import Lock
from supervisor.backup.looking import Inspection
from supervisor.backup.making import Making
from supervisor.backup.reading import BackupKey, Proven, read_backup
from supervisor.settings.secrets import Secret
from tests.supervisor.cli.keys.builders import fill
from tests.supervisor.settings.environment import AGENT_ID

NAMES = Keys(AGENT_ID)
IDENTITY = IdentityKeys.generate(os.urandom)
KEYSTORE = Keystore(AGENT_ID, IDENTITY)
SECRET = Secret(bytes(range(32)))
AGE = pyrage.x25519.Identity.generate()
LOCK = Lock.for_recipients([str(AGE.to_public())])
KEY = BackupKey(identities=Secret(str(AGE)))
FINGERPRINT = IDENTITY.public.fingerprint(AGENT_ID)


def read(data: bytes, fingerprint: bytes | None = None) -> tuple[Proven, Inspection]:
    """To its end."""
    look = Inspection()
    return read_backup(io.BytesIO(data), lambda _: KEY, look, fingerprint), look


async def connect_again(client: RedisClient, url: str) -> None:
    """All connections to the server end, and this client has a new one, as when another server has taken over."""
    with redis.Redis.from_url(url) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    await connected(client)


async def connected(client: RedisClient) -> None:
    """Until the client has noticed that its connection had ended, and has another one."""
    with pytest.raises(RedisFailed):
        await client.command("PING")
    await client.command("PING")


async def filled(client: RedisClient) -> Making:
    """A store with everything in it, and how its backup is made."""
    await fill(client, await StoreSeal(client, NAMES).adopt(SECRET.reveal()))
    return Making(client, NAMES, KEYSTORE, SECRET)


async def backup_of(client: RedisClient) -> bytes:
    """Of the store that is there."""
    sink = io.BytesIO()
    await Making(client, NAMES, KEYSTORE, SECRET).write(LOCK, sink)
    return sink.getvalue()
