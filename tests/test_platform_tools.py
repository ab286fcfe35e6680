"""A tool of a person's app is called through relay, Redis, supervisor and workers, and the manifest that names it is registered."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.api import RelayApi
from tests.supervisor.settings.test_manifest import GOOD
from tests.test_asking import heard
from tests.world import world

HOW = {"HASHEE_HANDLER": "tests.handlers:calendar", "HASHEE_WORKERS": "1", "HASHEE_STRIKES": "off"}


def manifest_file(directory: Path) -> str:
    path = directory / "manifest.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    return str(path)


@pytest.mark.long
async def test_a_persons_app_runs_what_the_manifest_names_and_the_handler_hears_what_came_of_it(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_MANIFEST=manifest_file(tmp_path), **HOW) as w:
        [ada] = w.people
        ada.tools = {"free_slots": lambda arguments: f"9:00 on {arguments['day']}"}
        await ada.say(w.conversations[ada], "/free monday")
        call = '[tool_call] free_slots {"day":"monday"}'
        await heard(w, ada, call, "Free at 9:00 on monday.")
        ada.tools = {}
        await ada.say(w.conversations[ada], "/free monday")
        await heard(w, ada, call, "Free at 9:00 on monday.", call, "Denied: unsupported.")
        agent_id, token = w.environment["HASHEE_AGENT_ID"], w.environment["HASHEE_AGENT_TOKEN"]
        async with RelayApi(w.relay_url, token) as api:
            has = await api.call("GET", f"/agents/{agent_id}", dict[str, Any])
    assert has["capability_manifest"]["tools"] == GOOD["tools"]
