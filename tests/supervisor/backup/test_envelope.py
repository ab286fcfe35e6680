"""The outside of a backup: opened by whom it was sealed to and nobody else, whole or not at all, in flat memory."""

import io
import tracemalloc
from collections.abc import Callable

import pyrage  # type: ignore[import-untyped]
import pytest

from crypto import keystore
from crypto.keystore import KeystoreError
from supervisor.backup.envelope import (
    PASSPHRASE_HEAD,
    AgeFile,
    BadIdentities,
    BadRecipient,
    ByteSource,
    Lock,
    check_identities,
)
from supervisor.backup.errors import BackupDamaged, NoBackup, WrongKey
from supervisor.settings.secrets import Secret

pytestmark = pytest.mark.pure

CONTENT = bytes(range(256)) * 1000
PASSPHRASE = Secret("correct horse battery staple")
CHUNK_BYTES = 65_536 + 16


@pytest.fixture(autouse=True)
def _quick_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "ARGON2_MEMORY_KIB", 64)
    monkeypatch.setattr(keystore, "ARGON2_ITERATIONS", 1)


class Pair:
    """An age identity as `age-keygen` writes it, and its public key."""

    def __init__(self) -> None:
        identity = pyrage.x25519.Identity.generate()
        self.public = str(identity.to_public())
        self.file = Secret(f"# created: today\n# public key: {self.public}\n{identity}\n")


def sealed_to(lock: Lock, content: bytes = CONTENT) -> bytes:
    sink = io.BytesIO()
    lock.seal(io.BytesIO(content), sink)
    return sink.getvalue()


def opened_with(pair: Pair, sealed: bytes) -> bytes:
    sink = io.BytesIO()
    AgeFile(io.BytesIO(sealed)).open_with_identities(pair.file, sink)
    return sink.getvalue()


def opened_under(passphrase: Secret[str], sealed: bytes) -> bytes:
    sink = io.BytesIO()
    AgeFile(io.BytesIO(sealed)).open_with_passphrase(passphrase, sink)
    return sink.getvalue()


@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
def test_each_of_its_recipients_opens_it_and_nobody_else(content: bytes) -> None:
    one, other, stranger = Pair(), Pair(), Pair()
    sealed = sealed_to(Lock.for_recipients([one.public, other.public]), content)
    assert opened_with(one, sealed) == opened_with(other, sealed) == content
    with pytest.raises(WrongKey):
        opened_with(stranger, sealed)


def test_sealed_to_recipients_it_is_a_plain_age_file() -> None:
    pair = Pair()
    identity = pyrage.x25519.Identity.from_str(pair.file.reveal().splitlines()[-1])
    assert pyrage.decrypt(sealed_to(Lock.for_recipients([pair.public])), [identity]) == CONTENT


def test_it_opens_under_its_passphrase_and_under_no_other() -> None:
    sealed = sealed_to(Lock.under_passphrase(PASSPHRASE))
    assert AgeFile(io.BytesIO(sealed)).is_under_passphrase
    assert opened_under(PASSPHRASE, sealed) == CONTENT
    with pytest.raises(WrongKey):
        opened_under(Secret("correct horse battery stable"), sealed)
    with pytest.raises(KeystoreError):
        Lock.under_passphrase(Secret(""))


def test_no_two_backups_under_one_passphrase_have_a_key_in_common() -> None:
    lock = Lock.under_passphrase(PASSPHRASE)
    one, other = sealed_to(lock), sealed_to(Lock.under_passphrase(PASSPHRASE))
    moved = one[: one.index(b"\n", len(PASSPHRASE_HEAD)) + 1] + other[other.index(b"age-encryption") :]
    with pytest.raises(WrongKey):
        opened_under(PASSPHRASE, moved)


def test_cut_anywhere_it_is_refused_at_the_latest_at_its_end() -> None:
    pair = Pair()
    sealed = sealed_to(Lock.for_recipients([pair.public]))
    at_a_chunk = len(sealed) - (len(CONTENT) % 65_536 + 16)
    for size in (30, 200, at_a_chunk - 1, at_a_chunk, at_a_chunk - CHUNK_BYTES, len(sealed) - 1):
        with pytest.raises(BackupDamaged):
            opened_with(pair, sealed[:size])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: sealed + b"x",
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        lambda sealed: sealed[:1000] + bytes([sealed[1000] ^ 1]) + sealed[1001:],
    ],
)
def test_changed_bytes_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    pair = Pair()
    with pytest.raises(BackupDamaged):
        opened_with(pair, spoil(sealed_to(Lock.for_recipients([pair.public]))))


@pytest.mark.parametrize("size", range(len(PASSPHRASE_HEAD) + 1, len(PASSPHRASE_HEAD) + 200, 37))
def test_a_head_that_is_cut_is_refused(size: int) -> None:
    with pytest.raises(BackupDamaged):
        AgeFile(io.BytesIO(sealed_to(Lock.under_passphrase(PASSPHRASE))[:size]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hashee-agent-backup/2 under something\n" * 9, b"age-enc"])
def test_what_is_no_backup_is_called_that(content: bytes) -> None:
    with pytest.raises(NoBackup):
        AgeFile(io.BytesIO(content))


def test_keys_that_are_none_are_refused_without_a_word_of_them() -> None:
    with pytest.raises(BadRecipient):
        Lock.for_recipients(["age1nonsense"])
    for text in ("", "# only a comment\n", "AGE-SECRET-KEY-1NONSENSE\n"):
        with pytest.raises(BadIdentities) as told:
            check_identities(Secret(text))
        assert "NONSENSE" not in str(told.value)


class Failing(io.RawIOBase):
    """A source or a sink whose disk fails after a while."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def read(self, size: int = -1, /) -> bytes:
        self._count()
        return bytes(size)

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._count()
        return len(data)

    def _count(self) -> None:
        self._after -= 1
        if self._after < 0:
            raise OSError(28, "No space left on device")


def test_what_fails_beside_it_is_told_as_it_was_and_not_as_damage() -> None:
    pair = Pair()
    lock = Lock.for_recipients([pair.public])
    for source, sink in ((Failing(20), io.BytesIO()), (io.BytesIO(CONTENT), Failing(3))):
        with pytest.raises(OSError, match="No space left"):
            lock.seal(source, sink)
    with pytest.raises(OSError, match="No space left"):
        AgeFile(io.BytesIO(sealed_to(lock))).open_with_identities(pair.file, Failing(3))


class Zeros:
    """So many, made as they are read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        taken = min(size, self._left)
        self._left -= taken
        return bytes(taken)


class Pipe:
    """Counts what it takes and keeps nothing of it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept."""


def test_its_memory_does_not_grow_with_its_size() -> None:
    pair, size = Pair(), 20 << 20
    source: ByteSource = Zeros(size)
    tracemalloc.start()
    try:
        sealed = Pipe()
        Lock.for_recipients([pair.public]).seal(source, sealed)
        assert sealed.size > size
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_nothing_of_a_lock_shows_in_its_repr() -> None:
    assert "AGE-SECRET" not in repr(Lock.under_passphrase(PASSPHRASE))
    assert PASSPHRASE.reveal() not in repr(vars(Lock.under_passphrase(PASSPHRASE)))
