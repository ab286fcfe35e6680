"""The guards of bus/: what each script checks before it writes, and what the typed half decides by itself."""

from __future__ import annotations

from tests.mutants.bus.backups import OF_BACKUPS
from tests.mutants.bus.files import OF_FILES
from tests.mutants.bus.intake import OF_INTAKE
from tests.mutants.bus.jobs import OF_JOBS
from tests.mutants.bus.library import OF_THE_LIBRARY
from tests.mutants.bus.sending import OF_SENDING
from tests.mutants.bus.store import OF_THE_STORE
from tests.mutants.bus.telemetry import OF_TELEMETRY
from tests.mutants.bus.timers import OF_TIMERS
from tests.mutants.bus.typed import TYPED
from tests.mutants.mutant import FOLDERS, Part

MUTANTS = (
    *OF_JOBS,
    *OF_INTAKE,
    *OF_SENDING,
    *OF_THE_LIBRARY,
    *OF_THE_STORE,
    *OF_BACKUPS,
    *OF_TELEMETRY,
    *OF_TIMERS,
    *OF_FILES,
    *TYPED,
)
BUS = Part("bus", MUTANTS, FOLDERS, ("-k", "not [memory"))
