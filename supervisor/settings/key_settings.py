"""What the commands under `keys` need of the settings, and where the supervisor finds the agent's private keys.

Both keys come from the environment (in its three forms) or both from a keystore, never one from each.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings.places import absolute_path, home_of, runtime_dir_of, state_dir_of
from bus.settings.reader import Setting, SettingsReader, Unusable, one_of
from bus.settings.shared import agent_id_of
from crypto.identity import IdentityKeys
from crypto.keystore import Keystore
from supervisor.settings import parsers
from supervisor.settings.keystore_files import KeystoreUnusable, default_keystore, load_keystore
from supervisor.settings.secrets import Secret
from supervisor.settings.table import (
    BACKUP_PASSPHRASE_FILE,
    ED25519_PRIVATE,
    FSYNC,
    KEYSTORE,
    STORE_KEY,
    X25519_PRIVATE,
)


@dataclass(frozen=True)
class FoundKeys:
    """The agent's private keys. `place` says where they were found."""

    x25519_private: Secret[bytes]
    ed25519_seed: Secret[bytes]
    place: str

    @property
    def identity(self) -> IdentityKeys:
        """The pair. Raises ValueError."""
        return IdentityKeys.from_private(self.x25519_private.reveal(), self.ed25519_seed.reveal())


@dataclass(frozen=True)
class KeySettings:
    """Where keys, store and store secret are. `redis_url` is None for the private Redis, `keystore` for a user without a home."""

    agent_id: str
    keystore: Path | None
    state_dir: Path
    runtime_dir: Path
    redis_url: Secret[str] | None
    store_key: Secret[bytes] | None
    fsync: str
    passphrase_file: Path | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "KeySettings":
        """Raises SettingsError."""
        reader = SettingsReader(environ)
        agent_id = agent_id_of(reader)
        settings = cls(
            agent_id=agent_id,
            keystore=reader.optional(KEYSTORE, absolute_path) or keystore_path(reader, agent_id),
            state_dir=state_dir_of(reader, agent_id),
            runtime_dir=runtime_dir_of(environ),
            redis_url=parsers.given_redis_url(reader),
            store_key=reader.optional(STORE_KEY, parsers.secret_bytes),
            fsync=reader.required(FSYNC, one_of(("second", "always")), ""),
            passphrase_file=reader.optional(BACKUP_PASSPHRASE_FILE, absolute_path),
        )
        reader.finish()
        return settings


def read_private_keys(environ: Mapping[str, str]) -> FoundKeys:
    """For the commands. Raises SettingsError."""
    reader = SettingsReader(environ)
    found = find_private_keys(reader, agent_id_of(reader))
    reader.finish()
    return found


def find_private_keys(reader: SettingsReader, agent_id: str) -> FoundKeys:
    """From the environment, else from the keystore; what is wrong stands in `reader` then."""
    path = keystore_path(reader, agent_id)
    in_environment = reader.is_given(X25519_PRIVATE) or reader.is_given(ED25519_PRIVATE)
    if in_environment or path is None or not (reader.is_given(KEYSTORE) or os.path.lexists(path)):
        return FoundKeys(
            reader.required(X25519_PRIVATE, parsers.secret_bytes, Secret(b"")),
            reader.required(ED25519_PRIVATE, parsers.ed25519_seed, Secret(b"")),
            reader.place(X25519_PRIVATE),
        )

    def parse(_text: str) -> Keystore:
        absolute_path(str(path))
        try:
            return load_keystore(path, agent_id)
        except KeystoreUnusable as problem:
            raise Unusable(problem.expectation) from None

    keystore = reader.optional(Setting(KEYSTORE.name, KEYSTORE.expectation, default=str(path)), parse)
    if keystore is None:
        return FoundKeys(Secret(b""), Secret(b""), str(path))
    x25519_private, ed25519_seed = keystore.identity.private_halves()
    return FoundKeys(Secret(x25519_private), Secret(ed25519_seed), str(path))


def keystore_path(reader: SettingsReader, agent_id: str) -> Path | None:
    """HASHEE_KEYSTORE, else the place in the user's home, if there is one."""
    given = reader.environ.get(KEYSTORE.name, "").strip()
    if given:
        return Path(given)
    home = home_of(reader.environ)
    return None if home is None else default_keystore(home, agent_id)
