"""Checks that the settings can be read and the state directory can be used."""

from collections.abc import Iterator

from bus.settings.reader import SettingsError
from bus.settings.shared import SHOWS_ERRORS
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, bad, ok, warn
from supervisor.keeper.state_directory import refuse_unusable
from supervisor.settings.misspelt import misspelt

SUBJECT = "settings"
HELP = "mend it (docs/settings.md), then: hashee-agent check-settings"


def look_at_settings(case: Case) -> Iterator[Finding]:
    """Yields a finding for each fault in the settings, else that all can be read."""
    for problem in case.settings_problems:
        yield bad(SUBJECT, "readable", problem, HELP)
    if not case.settings_problems:
        yield ok(SUBJECT, "readable", "all settings can be read")
    for name, meant in misspelt(case.environ).items():
        yield warn(SUBJECT, f"spelling of {name}", f"{name} is no setting, and changes nothing", f"is {meant} meant?")
    if case.shows_errors:
        yield warn(SUBJECT, "errors", SHOWS_ERRORS, "unset HASHEE_SHOW_ERRORS where people write")
    if case.state_dir is None:
        return
    try:
        refuse_unusable(case.state_dir)
    except SettingsError as problem:
        yield bad(SUBJECT, "state directory", str(problem), HELP)
    else:
        yield ok(SUBJECT, "state directory", f"{case.state_dir} can be used")
