"""The agent's own keys as files: `keystore.json`, and what a backup holds. Only the supervisor and `keys …` read them.

A keystore that others can read is refused with the remedy; no error text holds anything of a file's content.
"""

import base64
import binascii
from pathlib import Path

import msgspec

from crypto.keystore import Keystore, KeystoreError, decode_keystore, encode_keystore
from host.private_files import is_private, make_folder, write_new
from host.unreadable import UNREADABLE
from supervisor.settings.secrets import STORE_SECRET_BYTES, Secret

KEYSTORE_FILE = "keystore.json"
CONTENTS_FORMAT = "hashee-backup-contents-v1"
MOST_BYTES = 65536


class KeystoreUnusable(Exception):
    """A keystore that is not taken. `expectation` completes "it should be …"."""

    def __init__(self, expectation: str) -> None:
        super().__init__(f"the keystore should be {expectation}")
        self.expectation = expectation


def default_keystore(home: Path, agent_id: str) -> Path:
    """Where the platform's own SDK keeps it too."""
    return home / ".hashee" / agent_id / KEYSTORE_FILE


def load_keystore(path: Path, agent_id: str) -> Keystore:
    """Raises KeystoreUnusable: unreadable, readable for others, damaged, or another agent's."""
    try:
        if not is_private(path):
            raise KeystoreUnusable(f"readable by its owner alone: chmod 600 {path}")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES)
    except OSError as problem:
        raise KeystoreUnusable(f"a file that can be read ({path}: {problem.strerror})") from None
    try:
        keystore = decode_keystore(data)
    except KeystoreError as problem:
        raise KeystoreUnusable(f"a keystore ({path}: {problem})") from None
    if keystore.agent_id != agent_id:
        raise KeystoreUnusable(f"this agent's ({path} is of agent {keystore.agent_id})")
    return keystore


def write_keystore(path: Path, keystore: Keystore) -> None:
    """A new file, mode 0600, in folders of mode 0700. Raises FileExistsError, OSError."""
    make_folder(path.parent)
    write_new(path, encode_keystore(keystore))


class BackupContents(msgspec.Struct, frozen=True):
    """What a backup holds. `store_secret` is None when none was made before the backup."""

    keystore: Keystore
    store_secret: Secret[bytes] | None

    def __repr__(self) -> str:
        return f"BackupContents(agent_id={self.keystore.agent_id!r}, …)"


class _Contents(msgspec.Struct):
    format: str
    keystore: str
    store_secret: str | None


def encode_contents(contents: BackupContents) -> bytes:
    """The bytes that are sealed under the passphrase."""
    secret = contents.store_secret
    return msgspec.json.encode(
        _Contents(
            CONTENTS_FORMAT,
            encode_keystore(contents.keystore).decode(),
            None if secret is None else base64.b64encode(secret.reveal()).decode(),
        )
    )


def decode_contents(data: bytes) -> BackupContents:
    """The inverse of `encode_contents`. Raises KeystoreError."""
    try:
        stored = msgspec.json.decode(data, type=_Contents)
        secret = None if stored.store_secret is None else base64.b64decode(stored.store_secret, validate=True)
    except (*UNREADABLE, binascii.Error):
        raise KeystoreError("the backup opens, but holds something else than keys") from None
    if stored.format != CONTENTS_FORMAT or (secret is not None and len(secret) != STORE_SECRET_BYTES):
        raise KeystoreError("the backup opens, but was made by a version that this program does not know")
    return BackupContents(decode_keystore(stored.keystore.encode()), None if secret is None else Secret(secret))
