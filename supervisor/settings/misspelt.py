"""Finds names in the environment that are no setting and nearly one: `HASHEE_WORKER=4` is an owner's own variable, and changes nothing."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from bus.settings.reader import Setting
from supervisor.settings.table import ALL_SETTINGS

PREFIX: Final = "HASHEE_"
ALIKE: Final = 0.82
"""Of 1: one letter in five may be another. HASHEE_DATABASE_URL is not meant as HASHEE_BASE_URL."""

OUR_OWN: Final = frozenset({"HASHEE_WORKER_NAME", "HASHEE_OWN_REDIS", "HASHEE_ENV_FILES", "HASHEE_ENV_FILES_NAMES", "HASHEE_WAY_DIRECTORY", "HASHEE_WAY_PYTHON"})  # fmt: skip
"""What our processes tell each other."""


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Returns the names that are likely meant as a setting, each with that setting."""
    known = {name for setting in ALL_SETTINGS for name in _names_of(setting)}
    plain = {name.removeprefix(PREFIX): name for name in sorted(known) if name.startswith(PREFIX)}
    found = dict[str, str]()
    for name in sorted(names):
        if not name.upper().startswith(PREFIX) or name in known or name in OUR_OWN:
            continue
        meant = get_close_matches(name.upper().removeprefix(PREFIX), plain, n=1, cutoff=ALIKE)
        if meant:
            found[name] = plain[meant[0]]
    return found


def _names_of(setting: Setting) -> tuple[str, ...]:
    return (setting.name, *setting.aliases, *((f"{setting.name}_FILE",) if setting.secret else ()))
