"""The file gate under `hashee-agent up`: found by the bus key alone, seen by `status` and the metrics, started again when it is killed."""

import json
import os
import signal
import socket
from pathlib import Path

import httpx2
import pytest
import trio

from bus.files.proofs import FilesKey
from bus.records.sealing import StoreKeys
from sandbox.api import PersonAccount
from sandbox.people import make_person
from sandbox.stage import stage
from supervisor.keeper.files_gate import FILES_SOCKET
from supervisor.settings.secrets import load_store_secret
from tests.sandbox.relay import Talk
from tests.supervisor.files.calling import called
from tests.waiting import waiting_for

pytestmark = pytest.mark.long

SEALED = bytes(range(256)) * 1000


async def test_a_worker_passes_files_through_the_gate_of_up_and_all_of_it_is_seen(tmp_path: Path) -> None:
    async with stage(tmp_path, settings={"HASHEE_WORKERS": "1"}) as house:
        state_dir = tmp_path / "state"
        person = await make_person(house.relay_url, "Ada")
        conversation_id = await person.meet(house.agent_id)
        await person.close()
        it = Talk(house.relay_url, await house.api.add_agent("unused"), PersonAccount("", ""), conversation_id)
        store_secret = load_store_secret(state_dir)
        assert store_secret is not None
        assert (await status(state_dir))["keeper"]["files"]["pid"] == 0
        async with called(state_dir / FILES_SOCKET, it, house.api, state_dir) as caller:
            caller.key = FilesKey.of_bus_key(StoreKeys.derive(store_secret.reveal()).bus.export())
            attachment_id = await caller.upload(SEALED)
            gate = (await status(state_dir))["keeper"]["files"]
            os.kill(gate["pid"], signal.SIGKILL)
        async with called(state_dir / FILES_SOCKET, it, house.api, state_dir) as caller:
            caller.key = FilesKey.of_bus_key(StoreKeys.derive(store_secret.reveal()).bus.export())
            assert (await caller.get(attachment_id, len(SEALED))).body == SEALED
            said = await status(state_dir)
            assert said["keeper"]["files"]["deaths"] == 1
            assert said["keeper"]["files"]["pid"] != gate["pid"]
        async with httpx2.AsyncClient(trust_env=False) as client:
            with waiting_for("the supervisor to show what the gate has passed on", 10):
                while 'transfers_total{direction="in"} 1.0' not in (await client.get(f"{house.http_url}/metrics")).text:
                    await trio.sleep(0.05)
        names = await trio.Path(f"/proc/{said['keeper']['files']['pid']}/environ").read_bytes()
        assert b"HASHEE_X25519" not in names


async def status(state_dir: Path) -> dict[str, dict[str, dict[str, int]]]:
    """What `hashee-agent status --json` shows."""

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(state_dir / "control.sock"))
            line.sendall(b'{"command":"status"}\n')
            return line.makefile("rb").readline()

    answer = json.loads(await trio.to_thread.run_sync(ask))
    assert answer["ok"], answer
    found: dict[str, dict[str, dict[str, int]]] = answer["result"]
    return found
