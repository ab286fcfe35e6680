"""Encodes and decodes the frames of a backup: the manifest, the keys, then the store (bus/records/saved.py). The repr of a key shows nothing."""

from datetime import datetime
from typing import Annotated

import msgspec

from bus.records.saved import Saved, SavedConversation, Value, Waiting
from crypto.identity import PublicIdentity
from crypto.keystore import Keystore, KeystoreError, decode_keystore, encode_keystore
from host.unreadable import UNREADABLE
from supervisor.backup.errors import BackupDamaged
from supervisor.settings.secrets import STORE_SECRET_BYTES, Secret

LATEST_MS = 253_370_764_800_000  # the year 9999, the last that has dates
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Manifest(msgspec.Struct, frozen=True, array_like=True, tag="manifest"):
    """The first frame: what the backup is. Times are of Redis' clock; `writes`: the write count; `epoch`: of sessions."""

    agent_id: str
    made_ms: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]
    version: str
    writes: Count
    epoch: Count

    @property
    def made(self) -> str:
        """When it was made, for people: local time with its offset."""
        return time_of(self.made_ms)


def time_of(at_ms: int) -> str:
    """Returns local time with its offset, to the second."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(sep=" ", timespec="seconds")


class BackupKeys(msgspec.Struct, frozen=True, array_like=True, tag="keys"):
    """The second frame: the keystore as a file, and the store secret."""

    keystore: bytes
    store_secret: bytes

    def __repr__(self) -> str:
        return "BackupKeys(…)"

    @classmethod
    def of(cls, keystore: Keystore, store_secret: Secret[bytes]) -> "BackupKeys":
        """Makes the frame for a backup."""
        return cls(encode_keystore(keystore), store_secret.reveal())

    def opened(self) -> tuple[Keystore, Secret[bytes]]:
        """Decodes keystore and store secret. Raises BackupDamaged."""
        try:
            keystore = decode_keystore(self.keystore)
        except KeystoreError as problem:
            raise BackupDamaged(str(problem)) from None
        if len(self.store_secret) != STORE_SECRET_BYTES:
            raise BackupDamaged("the backup's store secret has another length than one has")
        return keystore, Secret(self.store_secret)


Frame = Manifest | BackupKeys | Value | Waiting | SavedConversation

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Manifest | BackupKeys | Saved) -> bytes:
    """Returns the body of a frame."""
    return _encode(frame)


class Unpacker:
    """Decodes frames in their order: the manifest, the keys, then the store."""

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self.keystore: Keystore | None = None
        self.store_secret: Secret[bytes] | None = None

    def take(self, body: bytes) -> Saved | None:
        """Takes a frame; returns its piece of the store, None for manifest and keys. Raises BackupDamaged."""
        try:
            frame = _decoder.decode(body)
        except UNREADABLE:
            raise BackupDamaged("a frame of the backup is not of a shape that this version knows") from None
        if self.manifest is None:
            if not isinstance(frame, Manifest):
                raise BackupDamaged("the backup does not begin with what it is")
            self.manifest = frame
        elif self.keystore is None:
            if not isinstance(frame, BackupKeys):
                raise BackupDamaged("the backup's keys are not where they belong")
            self.keystore, self.store_secret = frame.opened()
        elif isinstance(frame, Manifest | BackupKeys):
            raise BackupDamaged("the backup says twice what it is")
        else:
            return frame
        return None

    def check_author(self, author: PublicIdentity) -> Manifest:
        """Checks that the backup was signed with the keys in it; returns the manifest. Raises BackupDamaged."""
        if self.manifest is None or self.keystore is None:
            raise BackupDamaged("the backup holds nothing")
        if self.keystore.agent_id != self.manifest.agent_id or self.keystore.identity.public != author:
            raise BackupDamaged("the backup was signed with other keys than those that it holds")
        return self.manifest
