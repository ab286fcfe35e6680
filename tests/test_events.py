"""Events of the relay reach the handlers: for real."""

from pathlib import Path

import trio

from sandbox.people import make_person
from tests.handlers import MET_FILE
from tests.waiting import waiting_for
from tests.world import world


async def test_whoever_meets_the_agent_is_an_event_and_one_more_for_each(tmp_path: Path) -> None:
    met = tmp_path / "met"
    settings = {"HASHEE_HANDLER": "tests.handlers:meeting", MET_FILE: str(met)}
    async with world(tmp_path, people=(), **settings) as w:
        people = [await make_person(w.relay_url, name) for name in ("Ada", "Ben")]
        for person in people:
            await person.meet(w.environment["HASHEE_AGENT_ID"])
        with waiting_for("two events", 60):
            while not met.exists() or len(met.read_text(encoding="utf-8").splitlines()) < 2:
                await trio.sleep(0.05)
        assert met.read_text(encoding="utf-8").splitlines() == [person.account.user_id for person in people]
        for person in people:
            await person.close()
