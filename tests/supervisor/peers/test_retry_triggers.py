"""What may mend which reason: whatever comes touches what it may mend, all of that, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.records.keys import Keys
from bus.steps.letters import Quarantine
from bus.steps.store import InboundStore, Intake, Source
from bus.transport.client import open_redis
from crypto.errors import Reason
from supervisor.peers.retry_triggers import (
    RetryTrigger,
    group_key_came,
    mark,
    owner_changed,
    session_began,
    session_thing,
)
from tests.bus.builders import AGENT, arrival_of
from tests.redis_server import redis_server

SESSION = b"session"
THINGS = {
    "of ada": "ada",
    "of bob": "bob",
    "of the group": "group",
    "of an older version's group": "",
    "of ada's session": session_thing("ada", SESSION),
    "of another session": session_thing("ada", b"other"),
}

OWNERS = {Reason.NO_GRANT, Reason.UNKNOWN_SENDER, Reason.KEY_CHANGED, Reason.NO_SCOPE, Reason.BAD_SIGNATURE}
SESSIONS = {Reason.NO_SESSION, Reason.UNKNOWN_PREKEY}


@asynccontextmanager
async def quarantine(directory: Path) -> AsyncIterator[Quarantine]:
    """One message for each reason and each thing to wait for."""
    with redis_server(directory) as url:
        async with open_redis(url) as client:
            store, seq = InboundStore(client, AGENT, "supervisor-1"), 0
            for reason in Reason:
                for what, thing in THINGS.items():
                    seq += 1
                    arrival = arrival_of(seq, 0, source=Source.POLL)
                    arrival = msgspec.structs.replace(arrival, session=None, message_id=f"{reason.value} {what}")
                    kept = await store.quarantine(arrival, reason=reason.value, frame=b"{}", waits_for=thing)
                    assert kept is Intake.ACCEPTED
            yield Quarantine(client, Keys(AGENT))


@pytest.mark.parametrize(
    ("trigger", "reasons", "of"),
    [
        (owner_changed("ada"), OWNERS, {"of ada"}),
        (group_key_came("group"), {Reason.UNKNOWN_GROUP_KEY}, {"of the group", "of an older version's group"}),
        (session_began("ada", SESSION), SESSIONS, {"of ada's session", "of ada"}),
        (owner_changed("nobody"), OWNERS, set()),
    ],
)
async def test_what_comes_marks_what_it_may_mend(
    tmp_path: Path, trigger: RetryTrigger, reasons: set[Reason], of: set[str]
) -> None:
    async with quarantine(tmp_path) as kept:
        marked = await mark(kept, trigger)
        wanted = {f"{reason.value} {what}" for reason in reasons for what in of}
        assert set(await kept.wanted()) == wanted
        assert marked == len(wanted)
