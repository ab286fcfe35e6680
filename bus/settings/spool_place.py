"""Where a worker's sealed files wait on their way out, and how much room they have: HASHEE_SPOOL_DIR, HASHEE_SPOOL_MB."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings.places import absolute_path, home_of, state_dir_of
from bus.settings.reader import SettingsReader, Unusable, whole_number
from bus.settings.shared import SPOOL_DIR, SPOOL_MB, STATE_DIR
from host.own_folder import fault_of_own_folder
from host.socket_place import SHORT_DIR

SPOOL_FOLDER = "spool"
SEALED_ENDING = ".sealed"
"""Of the name of each file in it."""


@dataclass(frozen=True)
class SpoolPlace:
    """The folder of the spool, and how many bytes may lie in it."""

    folder: Path
    most_bytes: int


def spool_place_of(reader: SettingsReader, agent_id: str) -> SpoolPlace:
    """Returns where the spool is: as it is set, else in the state directory, else, of a user without a home, in the folder for temporary files."""
    given = reader.optional(SPOOL_DIR, absolute_path)
    most = reader.required(SPOOL_MB, whole_number(1, 1 << 20), 1)
    return SpoolPlace(given or _own(reader, agent_id), most << 20)


def _own(reader: SettingsReader, agent_id: str) -> Path:
    environ = reader.environ
    if reader.is_given(STATE_DIR) or environ.get("STATE_DIRECTORY") or home_of(environ) is not None:
        return state_dir_of(reader, agent_id) / SPOOL_FOLDER
    temporary = Path(environ.get("TMPDIR", ""))
    return (temporary if temporary.is_absolute() else SHORT_DIR) / f"hashee-agent-{agent_id}" / SPOOL_FOLDER


def refuse_unusable_spool(environ: Mapping[str, str]) -> None:
    """Raises SettingsError where HASHEE_SPOOL_DIR certainly can not be used. For the start of what has workers, alone: a disk that fails later costs files, and nobody else."""
    reader = SettingsReader(environ)
    reader.optional(SPOOL_DIR, _own_folder)
    reader.finish()


def _own_folder(text: str) -> Path:
    path = absolute_path(text)
    fault = fault_of_own_folder(path)
    if fault is not None:
        raise Unusable(f"{SPOOL_DIR.expectation} ({fault})")
    return path
