"""Files (announced, uploaded, confirmed by hash, fetched) and groups through the relay's REST."""

import hashlib
from pathlib import Path

import httpx2
import pytest

from sandbox.api import ApiRefused, RelayApi
from supervisor.relay.frames import GroupKeyRotated, MessageNew, MessageSend
from tests.sandbox.relay import Talk, agent_client, person_client, relay, talk

CIPHERTEXT = bytes(range(256)) * 1000


async def announce(it: Talk, api: RelayApi, size: int = len(CIPHERTEXT)) -> tuple[str, str]:
    body = {"filename": "f", "content_type": "x/y", "size": size, "conversation_id": it.conversation_id}
    answer = await api.call("POST", f"/agents/{it.agent.agent_id}/files", dict[str, str], body)
    return answer["upload_id"], answer["upload_url"]


async def put(it: Talk, url: str, data: bytes) -> int:
    headers = {"authorization": f"Bearer {it.agent.token}"}
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
        return (await client.put(url, content=data)).status_code


async def test_a_file_goes_up_is_confirmed_by_its_hash_and_fetched_by_the_person(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), RelayApi(it.url, it.agent.token) as agent:
        upload_id, upload_url = await announce(it, agent)
        assert await put(it, upload_url, CIPHERTEXT) == 200
        body = {"upload_id": upload_id, "sha256": hashlib.sha256(CIPHERTEXT).hexdigest()}
        confirmed = await agent.call("POST", "/files/confirm", dict[str, str], body)
        headers = {"authorization": f"Bearer {it.person.access_token}"}
        async with httpx2.AsyncClient(trust_env=False, headers=headers) as person:
            fetched = await person.get(f"{it.url}/files/{confirmed['attachment_id']}")
        assert fetched.content == CIPHERTEXT


async def test_another_hash_than_the_ciphertexts_is_refused_by_name(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), RelayApi(it.url, it.agent.token) as agent:
        upload_id, upload_url = await announce(it, agent)
        await put(it, upload_url, CIPHERTEXT)
        with pytest.raises(ApiRefused) as refused:
            await agent.call("POST", "/files/confirm", dict[str, str], {"upload_id": upload_id, "sha256": "0" * 64})
        assert refused.value.code == "SHA256_MISMATCH"


async def test_an_upload_of_another_size_than_announced_is_refused(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, _), RelayApi(it.url, it.agent.token) as agent:
        _, upload_url = await announce(it, agent)
        assert await put(it, upload_url, CIPHERTEXT + b"x") == 413
        assert await put(it, upload_url, CIPHERTEXT[:-1]) == 400
        with pytest.raises(ApiRefused) as refused:
            await announce(it, agent, 200 * 1024 * 1024)
        assert refused.value.code == "FILE_TOO_LARGE"


async def test_a_group_has_one_conversation_for_all_and_versions_of_its_key_only_rise(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api):
        other = await api.add_person("Ben")
        group = await api.add_group(it.agent.agent_id, (it.person.user_id, other.user_id))
        async with (
            RelayApi(it.url, it.person.access_token) as ada,
            RelayApi(it.url, it.agent.token) as agent_api,
            agent_client(it) as agent,
            person_client(it) as person,
        ):
            path = f"/keys/groups/{group.group_id}"
            await ada.call("PUT", path, dict[str, int], {"key_version": 2, "envelope": "E2"})
            assert await agent.receive() == GroupKeyRotated(group.group_id, 2)
            assert await person.receive() == GroupKeyRotated(group.group_id, 2)
            key = await agent_api.call("GET", path, dict[str, object])
            assert key == {"group_id": group.group_id, "key_version": 2, "envelope": "E2"}
            with pytest.raises(ApiRefused):
                await ada.call("PUT", path, dict[str, int], {"key_version": 2, "envelope": "again"})
            with pytest.raises(ApiRefused):  # or nobody could make a next one
                await ada.call("PUT", path, dict[str, int], {"key_version": 2**32 - 1, "envelope": "the last"})
            await agent.send(MessageSend("01", group.conversation_id, "text", "to all"))
            heard = await person.receive()
            assert isinstance(heard, MessageNew)
            assert heard.conversation_type == "group"


async def test_a_manifest_is_kept_with_the_agent(tmp_path: Path) -> None:
    async with relay(tmp_path) as (url, api):
        account = await api.add_agent("Echo")
        async with RelayApi(url, account.token) as agent:
            path = f"/agents/{account.agent_id}"
            await agent.call("PATCH", path, dict[str, object], {"capability_manifest": {"schema_version": "1.0"}})
            kept = await agent.call("GET", path, dict[str, object])
        assert kept["capability_manifest"] == {"schema_version": "1.0"}
        assert kept["connection_mode"] == "websocket"
