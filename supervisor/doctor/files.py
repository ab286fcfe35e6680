"""Checks who can read the state directory, store secret, keystore, and files with settings and secrets."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bus.settings.reader import SettingsReader
from bus.settings.redis_tls import REDIS_KEY
from host.redis_folder import APPEND_ONLY_FOLDER, DATA_FOLDER
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, bad, ok, unknown, warn
from supervisor.settings.env_files import env_files_of
from supervisor.settings.secrets import NEXT_STORE_SECRET_FILE, STORE_SECRET_BYTES, STORE_SECRET_FILE
from supervisor.settings.table import ALL_SETTINGS, BACKUP_IDENTITY_FILE, BACKUP_PASSPHRASE_FILE

SUBJECT = "files"
OTHERS = 0o077
WORLD = 0o007
NAME_A_SECRET = (BACKUP_PASSPHRASE_FILE, BACKUP_IDENTITY_FILE, REDIS_KEY)


def look_at_files(case: Case) -> Iterator[Finding]:
    """Yields the findings on modes and owners, and whether a store's secret is missing."""
    if case.state_dir is not None:
        yield from _private(case.state_dir, "state directory", "700")
        if not case.store_key_is_given and case.state_dir.is_dir():
            yield from _store_secret(case.state_dir)
    if case.keystore is not None and os.path.lexists(case.keystore):
        yield from _private(case.keystore, "keystore", "600")
    for path in env_files_of(case.environ):
        yield from _private(path, "env file", "600")
    for name, secret in secret_files(case):
        yield from _unread_by_strangers(secret, name)


def _store_secret(state_dir: Path) -> Iterator[Finding]:
    path, unfinished = state_dir / STORE_SECRET_FILE, state_dir / NEXT_STORE_SECRET_FILE
    if os.path.lexists(unfinished):
        said = f"{unfinished} is there: a rotation of the store secret was interrupted"
        yield bad(SUBJECT, "rotation", said, "hashee-agent keys rotate-store")
    if os.path.lexists(path):
        yield from _private(path, "store secret", "600")
        if path.stat().st_size != STORE_SECRET_BYTES:
            said = f"{path} does not hold {STORE_SECRET_BYTES} bytes"
            yield bad(SUBJECT, "store secret's length", said, "hashee-agent keys restore FILE")
    elif any(file.stat().st_size for file in (state_dir / DATA_FOLDER / APPEND_ONLY_FOLDER).glob("*.aof")):
        said = f"{path} is missing, and what the store holds opens with nothing else"
        yield bad(SUBJECT, "store secret", said, "hashee-agent keys restore FILE")
    else:
        yield unknown(SUBJECT, "store secret", "there is none yet; the first start of hashee-agent up makes it")


def secret_files(case: Case) -> Iterator[tuple[str, Path]]:
    """Yields the files with secrets, each with the setting that names it."""
    reader = SettingsReader(case.environ)
    for setting in ALL_SETTINGS:
        name = setting.name if setting in NAME_A_SECRET else f"{setting.name}_FILE"
        if name == setting.name or setting.secret:
            if given := case.environ.get(name, "").strip():
                yield name, Path(given)
            elif (credential := reader.credential_path(setting)) is not None:
                yield f"credential {credential.name}", credential


def _private(path: Path, name: str, mode: str) -> Iterator[Finding]:
    found = _stat(path)
    if isinstance(found, str):
        yield unknown(SUBJECT, name, found)
        return
    if found.st_mode & OTHERS:
        said = f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner can open it"
        yield bad(SUBJECT, name, said, f"chmod {mode} {path}")
    elif found.st_uid not in (os.geteuid(), 0):
        said = f"{path} belongs to uid {found.st_uid}, and this is uid {os.geteuid()}"
        yield bad(SUBJECT, name, said, f"run this as the agent's user, or: chown {os.geteuid()} {path}")
    else:
        yield ok(SUBJECT, name, f"{path}: mode {stat.S_IMODE(found.st_mode):04o}")


def _unread_by_strangers(path: Path, name: str) -> Iterator[Finding]:
    """Yields a finding if everybody can read the file; a group may, since platforms mount secrets for a group."""
    found = _stat(path)
    if isinstance(found, str):
        yield bad(SUBJECT, name, found, f"put the secret there, or change {name}")
    elif found.st_mode & WORLD:
        said = f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: everybody on this host can open it"
        yield warn(SUBJECT, name, said, f"chmod o-rwx {path}")
    else:
        yield ok(SUBJECT, name, f"{path}: mode {stat.S_IMODE(found.st_mode):04o}")


def _stat(path: Path) -> os.stat_result | str:
    try:
        return path.stat()
    except OSError as problem:
        return f"{path}: {problem.strerror}"
