"""`backup drill FILE`: tries a restore where it harms nothing: in a folder of its own, with a relay on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import click
import trio

from bus.settings.shared import AGENT_ID, STATE_DIR
from bus.transport.wire import RedisFull
from host import parent_death
from supervisor.backup.envelope import BadIdentities
from supervisor.backup.errors import BackupUnusable
from supervisor.backup.looking import Inspection
from supervisor.backup.reading import read_backup
from supervisor.backup.restoring import Restore, Restored, RestoreRefused, Wishes
from supervisor.cli.backup.opening import Fingerprint, KeyOfBackup, say_counts
from supervisor.cli.keys.telling import told
from supervisor.cli.store import REFUSALS
from supervisor.keeper.state_directory import make_private, take_lock
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.table import KEYSTORE

EXIT_TERMINATED = 143
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "PYTHONPATH")


@click.command(short_help="Restore into a scratch folder and hold a conversation.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fingerprint", type=Fingerprint(), help="Of the agent that must have made it; else it is only told.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="In which folder there is room for the store (default: that of temporary files). All of it is deleted afterwards.",
)
def drill(file: Path, fingerprint: bytes | None, scratch: Path | None) -> int:
    """Bring FILE back in a folder of its own, start the agent there with a relay of this machine and an echo, and have a newcomer talk to it.

    The real relay, the real store and your handler have no part in it. Ends with 0 if the newcomer was answered.
    """
    key = KeyOfBackup()
    with _folder(scratch) as folder, told(*REFUSALS, BackupUnusable, BadIdentities, RestoreRefused):
        with file.open("rb") as source:
            restored = _restore(source, key, folder, fingerprint)
        manifest = restored.proven.manifest
        click.echo(f"restored agent {manifest.agent_id} as it was at {restored.made}:")
        say_counts(restored.counts)
        command = [
            sys.executable,
            "-P",
            "-m",
            "sandbox",
            "drill",
            "--folder",
            str(folder),
            "--agent-id",
            manifest.agent_id,
        ]
        command = parent_death.command(os.getpid(), command)
        status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, env=_environment()).returncode
    if status != 0:
        raise click.ClickException(
            "the drill has failed: the agent was restored and does not answer; its log stands above, docs/disaster.md says more"
        )
    click.echo("the drill went well; everything of it is deleted")
    return 0


def _restore(source: BinaryIO, key: KeyOfBackup, folder: Path, fingerprint: bytes | None) -> Restored:
    proven = read_backup(source, key, Inspection(), fingerprint)  # whose it is
    environ = {
        **_environment(),
        AGENT_ID.name: proven.manifest.agent_id,
        STATE_DIR.name: str(folder / "state"),
        KEYSTORE.name: str(folder / "keystore.json"),
    }
    settings = KeySettings.from_environ(environ)
    make_private(settings.state_dir)
    restore = Restore(settings, None, source, key)
    wishes = Wishes(proven.fingerprint)
    again = restore.prove(wishes)
    lock = take_lock(settings.state_dir, patience_seconds=0.0)
    try:
        return trio.run(restore.run, again, wishes, lock)
    except RedisFull as problem:
        problem.add_note("name a folder with more room: --scratch FOLDER")
        raise
    finally:
        os.close(lock)


def _environment() -> dict[str, str]:
    """Returns an environment without any of the real agent's settings."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


@contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """Gives a folder that is deleted afterwards, also when the drill is told to end, since the agent's keys are in it."""
    signal.signal(signal.SIGTERM, _leave)
    folder = Path(tempfile.mkdtemp(prefix="hashee-drill-", dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(EXIT_TERMINATED)
