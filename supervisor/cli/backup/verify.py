"""`backup verify FILE`: reads a backup to its end and shows what it would restore. It changes nothing and needs no store."""

import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

import click

from crypto.keystore import fingerprint_hex, fingerprint_words
from supervisor.backup.checking import Checking
from supervisor.backup.counts import BackupCounts
from supervisor.backup.envelope import BadIdentities
from supervisor.backup.errors import BackupDamaged, BackupUnusable
from supervisor.backup.looking import Inspection
from supervisor.backup.reading import Proven, read_backup
from supervisor.cli.backup.opening import Fingerprint, KeyOfBackup, say_counts
from supervisor.cli.keys.telling import told

STANDARD_INPUT = "-"


class Checked(NamedTuple):
    """The facts of a backup that was read to its end, and what is in it."""

    proven: Proven
    counts: BackupCounts
    checking: Checking


@click.command(short_help="Open a backup and say what it would bring back.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--fingerprint",
    type=Fingerprint(),
    help="Of the agent that must have made it, as `keys show` tells it; else it is told.",
)
def verify(file: Path, fingerprint: bytes | None) -> int:
    """Open FILE (- for standard input) to its end, check its signature and every value in it, and count them.

    Nothing is written, and no store is needed. Ends with 1 where something in it does not open.
    """
    with told(BackupUnusable, BadIdentities):
        if str(file) == STANDARD_INPUT:
            checked = _read(sys.stdin.buffer, fingerprint)
        else:
            with file.open("rb") as opened:
                checked = _read(opened, fingerprint)
    return _say(checked)


def _read(source: BinaryIO, fingerprint: bytes | None) -> Checked:
    look = Inspection()
    proven = read_backup(source, KeyOfBackup(), look, fingerprint)
    if look.checking is None:
        raise BackupDamaged("the backup holds nothing")
    return Checked(proven, look.counts, look.checking)


def _say(checked: Checked) -> int:
    proven, checking = checked.proven, checked.checking
    manifest = proven.manifest
    click.echo(f"agent        {manifest.agent_id}")
    click.echo(f"made         {manifest.made} by hashee-agent {manifest.version}")
    words = fingerprint_words(proven.fingerprint).split()
    click.echo(f"fingerprint  {' '.join(words[:8])}")
    click.echo(f"             {' '.join(words[8:])}")
    click.echo(f"             {fingerprint_hex(proven.fingerprint)}")
    click.echo("it would bring back the agent's identity keys, its store secret, and")
    say_counts(checked.counts)
    problems = [f"{count} values of kind {kind} do not open" for kind, count in sorted(checking.unreadable.items())]
    if checking.keys is None:
        problems = ["the store in it is sealed under another store secret than the one in it"]
    if not checking.chain_holds:
        problems.append("the log of grants does not hold")
    for problem in problems:
        click.echo(f"hashee-agent: {problem}", err=True)
    if not problems:
        click.echo(f"its signature fits, and each of {checking.opened} sealed values opens")
    return 1 if problems else 0
