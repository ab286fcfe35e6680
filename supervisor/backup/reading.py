"""Reads a backup to its end: passes each piece on as it comes, and finally checks the signature of all of it.

A restore (supervisor/backup/restoring.py) reads a backup twice by this: once to prove it, once to use it.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from bus.records.saved import Saved
from crypto.identity import PublicIdentity
from crypto.keystore import Keystore, fingerprint_hex
from supervisor.backup.contents import Manifest, Unpacker
from supervisor.backup.envelope import AgeFile, ByteSource
from supervisor.backup.errors import BackupDamaged, WrongAuthor
from supervisor.backup.stream import BackupDecoder
from supervisor.settings.secrets import Secret


class BackupKey(msgspec.Struct, frozen=True):
    """The key that opens a backup: a passphrase, or age identities as a text. The repr shows neither."""

    passphrase: Secret[str] | None = None
    identities: Secret[str] | None = None


class Proven(msgspec.Struct, frozen=True):
    """The facts of a backup that was read to its end and whose signature is valid. `digest`: SHA-256 of what is signed."""

    manifest: Manifest
    author: PublicIdentity
    keystore: Keystore
    store_secret: Secret[bytes]
    digest: bytes

    @property
    def fingerprint(self) -> bytes:
        """Returns the fingerprint of the agent that made it."""
        return self.author.fingerprint(self.manifest.agent_id)

    def __repr__(self) -> str:
        return f"Proven(agent_id={self.manifest.agent_id!r}, …)"


class Visitor(Protocol):
    """Gets the contents of a backup while it is read; they are proven only when `read_backup` has returned."""

    def begin(self, manifest: Manifest, store_secret: Secret[bytes]) -> None:
        """Called once, before the first piece."""

    def take(self, piece: Saved) -> None:
        """Called with each piece of the store, in order."""


class KeyMissing(Exception):
    """The key of this backup was not given. `is_passphrase`: it is a passphrase."""

    def __init__(self, *, is_passphrase: bool) -> None:
        super().__init__(
            "this backup opens with a passphrase" if is_passphrase else "this backup opens with an age identity"
        )
        self.is_passphrase = is_passphrase


def read_backup(
    source: ByteSource, key: Callable[[bool], BackupKey], visitor: Visitor, fingerprint: bytes | None = None
) -> Proven:
    """Reads a backup to its end; returns its facts. `key` is called for the key, with whether it is a passphrase.

    `fingerprint`: of the agent that must have made it. Raises BackupUnusable, BadIdentities, and what `source`, `key` and `visitor` raise.
    """
    envelope = AgeFile(source)
    sink = _Frames(visitor)
    given = key(envelope.is_under_passphrase)
    if envelope.is_under_passphrase:
        if given.passphrase is None:
            raise KeyMissing(is_passphrase=True)
        envelope.open_with_passphrase(given.passphrase, sink)
    else:
        if given.identities is None:
            raise KeyMissing(is_passphrase=False)
        envelope.open_with_identities(given.identities, sink)
    return sink.finish(fingerprint)


class _Frames:
    """The sink that an envelope is opened into: cuts it into frames and passes them on."""

    def __init__(self, visitor: Visitor) -> None:
        self._reader = BackupDecoder()
        self._unpacker = Unpacker()
        self._visitor = visitor

    def write(self, data: bytes) -> int:
        for body in self._reader.feed(data):
            self._frame(body)
        return len(data)

    def _frame(self, body: bytes) -> None:
        unpacker = self._unpacker
        had_keys = unpacker.store_secret is not None
        piece = unpacker.take(body)
        if piece is not None:
            self._visitor.take(piece)
        elif not had_keys and unpacker.manifest is not None and unpacker.store_secret is not None:
            self._visitor.begin(unpacker.manifest, unpacker.store_secret)

    def flush(self) -> None:
        """Does nothing: frames are passed on as they come."""

    def finish(self, fingerprint: bytes | None) -> Proven:
        author = self._reader.finish()
        manifest = self._unpacker.check_author(author)
        keystore, secret = self._unpacker.keystore, self._unpacker.store_secret
        if keystore is None or secret is None:
            raise BackupDamaged("the backup holds nothing")
        proven = Proven(manifest, author, keystore, secret, self._reader.digest)
        if fingerprint not in (None, proven.fingerprint):
            raise WrongAuthor(
                f"the backup was made by an agent with another fingerprint: {fingerprint_hex(proven.fingerprint)}; "
                "nothing was changed"
            )
        return proven
