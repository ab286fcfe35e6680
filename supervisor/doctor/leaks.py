"""Searches for secrets in files of the state directory, the log, and command lines and environments of our processes.

A hit is reported by its place and never by its text. A place where a secret belongs is left out for that secret alone.
"""

import os
import shutil
import stat
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bus.settings.reader import SettingsError
from host.proc import PROC, command_line, descriptor, environment, parent_of, pids
from supervisor.doctor.case import Case
from supervisor.doctor.files import secret_files
from supervisor.doctor.findings import Finding, bad, ok, unknown
from supervisor.doctor.limits import unit_of
from supervisor.doctor.needles import CHUNK_BYTES, Needles
from supervisor.doctor.process_files import is_ours
from supervisor.settings.env_files import env_files_of
from supervisor.settings.key_settings import read_private_keys
from supervisor.settings.secrets import NEXT_STORE_SECRET_FILE, STORE_SECRET_FILE, StoreSecretDamaged, read_store_secret

SUBJECT = "leaks"
CANARY = "the canary"
JOURNAL_SINCE = "-1h"
REMEDY = "find what writes it, and take it away there; what to do with what has leaked: docs/security.md"
ELSEWHERE = "search it by hand for leak-test- (docker logs, kubectl logs, where your platform keeps it)"


def needles_of(case: Case, canary: str | None) -> Needles:
    """Returns what is searched for: the canary if one was sent, the token, the identity keys, the state directory's store secret."""
    values: dict[str, bytes] = {}
    if canary is not None:
        values[CANARY] = canary.encode()
    if case.token is not None:
        values["the token"] = case.token.reveal().encode()
    with suppress(SettingsError):  # that they cannot be read is another finding
        keys = read_private_keys(case.environ)
        values["the X25519 key"], values["the Ed25519 key"] = keys.x25519_private.reveal(), keys.ed25519_seed.reveal()
    if case.state_dir is not None:
        with suppress(StoreSecretDamaged, OSError):  # likewise
            secret = read_store_secret(case.state_dir / STORE_SECRET_FILE)
            if secret is not None:
                values["the store secret"] = secret.reveal()
    return Needles(values)


def told(place: str, hits: Iterable[tuple[str, str]], lawful: bool = False) -> Iterator[Finding]:
    """Yields a finding for each hit. `lawful`: secrets may stand at this place; the canary may nowhere."""
    for name, form in sorted(hits):
        if name == CANARY or not lawful:
            yield bad(SUBJECT, place, f"{name} stands there ({form})", REMEDY)


def look_into_files(case: Case, needles: Needles) -> Iterator[Finding]:
    """Searches all files of the state directory, the append-only file of a private Redis too."""
    if case.state_dir is None:
        yield unknown(SUBJECT, "files", "the settings do not say where they are")
        return
    count = total = 0
    lawful = _lawful_files(case)
    for path in sorted(case.state_dir.rglob("*")):
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            found = needles.find_in(_chunks(path))
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # a rewrite has just replaced it
        except OSError as problem:
            yield unknown(SUBJECT, f"file {path}", str(problem.strerror), "run this as the agent's user")
            continue
        count += 1
        yield from told(f"file {path}", found, path.resolve() in lawful)
    yield ok(SUBJECT, "files", f"{count} files with {total >> 20} MiB in {case.state_dir} were searched")


def look_into_processes(case: Case, needles: Needles, proc: Path = PROC) -> Iterator[Finding]:
    """Searches the command lines of all visible processes and the environments of ours; keeper and supervisor may have secrets in theirs."""
    lines = 0
    for pid in pids(proc):
        with suppress(OSError):  # it has ended, or is hidden from us
            found = needles.find(command_line(pid, proc))
            lines += 1
            yield from told(f"command line of process {pid}", found)
    ours = processes_of(case, proc)
    for pid, may_have_secrets in ours.items():
        with suppress(FileNotFoundError, ProcessLookupError):
            found = needles.find(environment(pid, proc))
            yield from told(f"environment of process {pid}", found, may_have_secrets)
    if ours:
        yield ok(SUBJECT, "processes", f"{lines} command lines and {len(ours)} environments were searched")
    else:
        yield unknown(SUBJECT, "processes", f"{lines} command lines were searched; no process of ours is seen here")


def look_into_logs(case: Case, needles: Needles, proc: Path = PROC) -> Iterator[Finding]:
    """Searches where stdout and stderr of our processes go: files, else the service's journal. A worker's pipe leads to its supervisor."""
    searched: set[str] = set()
    elsewhere: set[str] = set()
    ours = processes_of(case, proc)
    for pid, is_owner in ours.items():
        for number in (1, 2):
            place = descriptor(pid, number, proc)
            with suppress(FileNotFoundError, ProcessLookupError):
                name = str(place.readlink())
                if name in searched or name == os.devnull:
                    continue
                if not place.is_file():
                    if is_owner:
                        elsewhere.add(name)
                    continue
                searched.add(name)
                yield from told(f"log {name}", needles.find_in(_chunks(place)))
    if searched:
        yield ok(SUBJECT, "logs", f"searched: {', '.join(sorted(searched))}")
    if not elsewhere and searched:
        return
    unit = next((found for pid in ours if (found := unit_of(pid, proc)) is not None), None)
    journal = None if unit is None else _journal(unit)
    if journal is None:
        yield unknown(SUBJECT, "log elsewhere", "the log goes where this command cannot read it", ELSEWHERE)
        return
    yield from told("journal", needles.find(journal))
    yield ok(SUBJECT, "journal", f"the last hour of {unit[-1] if unit else ''} was searched")


def processes_of(case: Case, proc: Path = PROC) -> dict[int, bool]:
    """Returns keeper, supervisor and all that they have started, each with whether it may have secrets in its environment."""
    keeper = (case.status or {}).get("keeper") or {}
    owners = {pid for pid in (keeper.get("pid"), case.supervisor_pid) if pid is not None and is_ours(pid, proc)}
    children = defaultdict[int, list[int]](list)
    for pid in pids(proc):
        with suppress(OSError):  # it has ended
            children[parent_of(pid, proc)].append(pid)
    found, rest = dict.fromkeys(sorted(owners), True), sorted(owners)
    while rest:
        for child in children[rest.pop()]:
            if child not in found:
                found[child] = False
                rest.append(child)
    return found


def _lawful_files(case: Case) -> frozenset[Path]:
    """Returns the files that are there to keep secrets."""
    state_dir = case.state_dir or Path()
    kept = [state_dir / STORE_SECRET_FILE, state_dir / NEXT_STORE_SECRET_FILE]
    kept += [path for _, path in secret_files(case)]
    kept += env_files_of(case.environ)
    if case.keystore is not None:
        kept.append(case.keystore)
    return frozenset(path.resolve() for path in kept)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")


def _journal(unit: tuple[str, ...]) -> bytes | None:
    """Returns the last hour of the service's journal; None if there is none, or we may not read it."""
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return None
    scope = ["--user"] if len(unit) > 1 else []
    try:
        done = subprocess.run(
            [journalctl, *scope, "--no-pager", "--output=cat", f"--since={JOURNAL_SINCE}", f"--unit={unit[-1]}"],
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 and done.stdout.strip() else None
