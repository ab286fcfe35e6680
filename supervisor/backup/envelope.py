"""Seals and opens a backup in the age format (age-encryption.org/v1), streamed in chunks of 64 KiB, so that its size costs no memory.

Sealed to recipients' public keys it is a plain age file, which `age -d` opens too. Under a passphrase it is sealed to a fresh identity, which
stands in two lines before it, sealed under the passphrase (Argon2id in 64 MiB, crypto/keystore.py). age's own passphrase files are not used:
they cannot be streamed here, and their scrypt took 1 GiB. A truncated file shows only at its end: use nothing before `open_…` has returned.
"""

import io
import os
from collections.abc import Sequence
from typing import Protocol

import pyrage  # type: ignore[import-untyped]  # a compiled module without stubs

from crypto.keystore import KeystoreError, WrongPassphrase, open_backup, seal_backup
from supervisor.backup.errors import BackupDamaged, NoBackup, WrongKey
from supervisor.settings.secrets import Secret

AGE_HEAD = b"age-encryption.org/v1\n"
PASSPHRASE_HEAD = b"hashee-agent-backup/1 under a passphrase\n"
MOST_SEALED_IDENTITY_BYTES = 4096


class ByteSource(Protocol):
    """Something to read from: at most `size` bytes, none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    """Something to write to; each call writes all of its bytes."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


class BadRecipient(ValueError):
    """The text is no age public key."""


class BadIdentities(ValueError):
    """The text holds no age identity; the exception quotes nothing of it."""


class Lock:
    """What a backup is sealed to; made by `for_recipients` or `under_passphrase`. The repr shows nothing."""

    def __init__(self, recipients: Sequence[object], head: bytes, sealed_to: Sequence[str] = ()) -> None:
        self._recipients = list(recipients)
        self._head = head
        self.sealed_to = tuple(sealed_to)
        """The public keys; empty under a passphrase."""

    @classmethod
    def for_recipients(cls, recipients: Sequence[str]) -> "Lock":
        """Seals to public keys as `age-keygen` shows them (age1…); each of them opens it. Raises BadRecipient."""
        try:
            return cls([pyrage.x25519.Recipient.from_str(one) for one in recipients], b"", recipients)
        except pyrage.RecipientError:
            raise BadRecipient("not an age public key (age1…, as age-keygen shows it)") from None

    @classmethod
    def under_passphrase(cls, passphrase: Secret[str]) -> "Lock":
        """Seals under a passphrase. Raises KeystoreError for an empty one."""
        identity = pyrage.x25519.Identity.generate()
        sealed = seal_backup(str(identity).encode(), passphrase.reveal(), os.urandom)
        return cls([identity.to_public()], PASSPHRASE_HEAD + sealed)

    def seal(self, source: ByteSource, sink: Sink) -> None:
        """Writes all of `source`, sealed, to `sink`. Raises what either of them raises."""
        if self._head:
            sink.write(self._head)
        reader, writer = _Reader(source), _Writer(sink)
        try:
            pyrage.encrypt_io(reader, writer, self._recipients)
        except (pyrage.EncryptError, OSError):
            raise reader.problem or writer.problem or OSError("the backup could not be sealed") from None
        sink.flush()


class AgeFile:
    """A backup whose head was read, so that it is known what opens it."""

    def __init__(self, source: ByteSource) -> None:
        """Reads the head. Raises NoBackup, BackupDamaged, and what `source` raises."""
        head = _exactly(source, len(PASSPHRASE_HEAD))
        self._source = source
        self._read = head
        self._sealed_identity = b""
        self.is_under_passphrase = head == PASSPHRASE_HEAD
        if self.is_under_passphrase:
            self._read = b""
            self._sealed_identity = _line(source)
        elif not head.startswith(AGE_HEAD):
            raise NoBackup("this is not a backup that `hashee-agent backup` wrote")

    def open_with_passphrase(self, passphrase: Secret[str], sink: Sink) -> None:
        """Writes everything, opened, to `sink`; it is complete when this returns. Raises WrongKey, BackupDamaged, and what both raise."""
        try:
            text = open_backup(self._sealed_identity, passphrase.reveal())
            identity = pyrage.x25519.Identity.from_str(text.decode())
        except WrongPassphrase:
            raise WrongKey("the passphrase is wrong, or the backup's first lines have been changed") from None
        except (KeystoreError, pyrage.IdentityError, UnicodeDecodeError):
            raise BackupDamaged("the first lines of the backup have been changed") from None
        self._open([identity], sink)

    def open_with_identities(self, identities: Secret[str], sink: Sink) -> None:
        """Opens it likewise, with a text as `age-keygen` writes it: one identity a line, comments after `#`. Raises BadIdentities too."""
        self._open(_identities(identities), sink)

    def _open(self, identities: Sequence[object], sink: Sink) -> None:
        reader, writer = _Reader(self._source, self._read), _Writer(sink)
        try:
            pyrage.decrypt_io(reader, writer, identities)
        except (pyrage.DecryptError, OSError) as problem:
            if (own := reader.problem or writer.problem) is not None:
                raise own from None
            if "No matching keys" in str(problem):
                raise WrongKey("the backup is sealed to other keys than the one that was given") from None
            raise BackupDamaged("the backup is cut short, or its bytes have been changed") from None


def check_identities(text: Secret[str]) -> None:
    """Checks that a text holds age identities. Raises BadIdentities."""
    _identities(text)


def _identities(text: Secret[str]) -> list[object]:
    lines = [line.strip() for line in text.reveal().splitlines()]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        raise BadIdentities("a line that is no age identity (AGE-SECRET-KEY-1…, as age-keygen writes it)") from None
    if not found:
        raise BadIdentities("no age identity (AGE-SECRET-KEY-1…, as age-keygen writes it)")
    return found


class _Reader:
    """The source as pyrage reads it; keeps an exception, of which pyrage passes on only the text."""

    def __init__(self, source: ByteSource, before: bytes = b"") -> None:
        self._source = source
        self._before = io.BytesIO(before)
        self.problem: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._before.read(size) or self._source.read(size)
        except BaseException as problem:
            self.problem = problem
            raise


class _Writer:
    """The sink as pyrage writes to it; keeps an exception likewise."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.problem: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._sink.write(data)
        except BaseException as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        """Does nothing: the caller flushes the sink when all was written."""


def _exactly(source: ByteSource, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _line(source: ByteSource) -> bytes:
    """Reads up to the next end of a line, byte by byte, since what follows is read by pyrage."""
    found = b""
    while (byte := source.read(1)) != b"\n":
        if not byte or len(found) >= MOST_SEALED_IDENTITY_BYTES:
            raise BackupDamaged("the backup is cut short, or its first lines have been changed")
        found += byte
    return found
