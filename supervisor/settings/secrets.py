"""Values that must never be shown.

A `Secret` prints as `Secret(hidden)` wherever it is formatted, logged or shown in a traceback; only
`reveal()` gives the value, so that every place that touches one can be found by its name. The store secret's
file is made here too: it is the only thing that opens what stands in Redis.
"""

import hmac
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Generic, NoReturn, TypeVar, final

from host.private_files import write_new
from host.whole_file import NO_FILE, read_whole

STORE_SECRET_BYTES = 32
STORE_SECRET_FILE = "store.secret"  # noqa: S105  # a file name
NEXT_STORE_SECRET_FILE = "store.secret.next"  # noqa: S105  # there while `keys rotate-store` is under way

RESTORE_JOURNAL_FILE = "restore.journal"  # there from when a restore is decided until it is done

Value = TypeVar("Value", str, bytes)


@final
class Secret(Generic[Value]):
    """One secret text or byte string. Compared in constant time, never hashed, never pickled."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a dictionary

    def __init__(self, value: Value) -> None:
        self._value: Value = value

    def reveal(self) -> Value:
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self._value), _as_bytes(other.reveal()))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class StoreSecretDamaged(Exception):
    """The store secret's file does not hold 32 bytes. Never replaced: what Redis holds would be lost."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} does not hold {STORE_SECRET_BYTES} bytes; restore it from a backup")
        self.path = path


class StoreSecretMissing(Exception):
    """The store secret's file is gone, and the store is there. Never made anew: what Redis holds would not open with another."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            f"{state_dir / STORE_SECRET_FILE} is missing, and what Redis holds is sealed with it; restore it from a backup: "
            f"hashee-agent keys restore FILE (without one: move redis and grants.head out of {state_dir}, "
            "which begins a new store; what is in the old one is lost)"
        )


class RotationUnfinished(Exception):
    """`keys rotate-store` was interrupted: some of the store opens with the old secret, some with the new one."""

    def __init__(self) -> None:
        super().__init__("a rotation of the store secret was interrupted; finish it: hashee-agent keys rotate-store")


class RestoreUnfinished(Exception):
    """A restore of this state directory was decided and is not completed (supervisor/backup/switching.py)."""

    def __init__(self) -> None:
        super().__init__("a restore of this state directory was interrupted; finish it: hashee-agent restore --finish")


class JournalDamaged(Exception):
    """The journal of a decided restore cannot be read: some of the renames may have been done."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            f"{state_dir / RESTORE_JOURNAL_FILE} is damaged, so that the restore in it cannot be completed: move it and what was prepared beside it (restoring) away, "
            "and restore the backup once more: hashee-agent restore FILE --over-newer-store"
        )


def load_or_make_store_secret(state_dir: Path, *, is_sealed: bool = False) -> Secret[bytes]:
    """The 32-byte store secret of the private Redis, made on first start (PROTOCOL §5.11), mode 0600.

    `is_sealed`: Redis was seen to hold something sealed; whoever seals has written the secret before, so none is made then.
    Raises as `load_store_secret`; StoreSecretMissing; OSError when the directory cannot be written.
    """
    found = load_store_secret(state_dir)
    if found is not None:
        return found
    if is_sealed:
        raise StoreSecretMissing(state_dir)
    with suppress(FileExistsError):  # the first of two makers wins
        write_new(state_dir / STORE_SECRET_FILE, secrets.token_bytes(STORE_SECRET_BYTES))
    return load_or_make_store_secret(state_dir)


def load_store_secret(state_dir: Path) -> Secret[bytes] | None:
    """The store secret, None where none was made yet. Raises `StoreSecretDamaged`, `RotationUnfinished`, `RestoreUnfinished`."""
    if (state_dir / RESTORE_JOURNAL_FILE).exists():
        raise RestoreUnfinished
    if (state_dir / NEXT_STORE_SECRET_FILE).exists():
        raise RotationUnfinished
    return read_store_secret(state_dir / STORE_SECRET_FILE)


def read_store_secret(path: Path) -> Secret[bytes] | None:
    """One such file. Raises `StoreSecretDamaged`."""
    try:
        value = read_whole(path, STORE_SECRET_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as problem:
        if problem.errno in NO_FILE:
            raise StoreSecretDamaged(path) from None
        raise
    if len(value) != STORE_SECRET_BYTES:
        raise StoreSecretDamaged(path)
    return Secret(value)
