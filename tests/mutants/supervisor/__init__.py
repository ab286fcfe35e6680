"""The guards of supervisor/: what it decides by itself, before Redis or the relay is asked."""

from __future__ import annotations

from tests.mutants.mutant import FOLDERS, Part
from tests.mutants.supervisor.backup import BACKUP
from tests.mutants.supervisor.files import FILES
from tests.mutants.supervisor.handlers import HANDLERS
from tests.mutants.supervisor.house import HOUSE
from tests.mutants.supervisor.intake import INTAKE
from tests.mutants.supervisor.people import PEOPLE
from tests.mutants.supervisor.relay import RELAY
from tests.mutants.supervisor.sending import SENDING
from tests.mutants.supervisor.sessions import SESSIONS
from tests.mutants.supervisor.waiting import WAITING

MUTANTS = (*INTAKE, *WAITING, *SENDING, *SESSIONS, *RELAY, *PEOPLE, *HOUSE, *BACKUP, *HANDLERS, *FILES)
SUPERVISOR = Part("supervisor", MUTANTS, FOLDERS)
