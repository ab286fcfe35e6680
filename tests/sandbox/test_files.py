"""Files between a person and the relay, and what the relay does wrongly when it is asked to."""

import hashlib
from io import BytesIO
from pathlib import Path

import httpx2
import pytest

from crypto.errors import Unreadable
from sandbox.api import ApiRefused, RelayApi
from sandbox.files import HeardFile, download, files_of, free_path, safe_name, upload
from tests.sandbox.relay import Talk, talk

CONTENT = bytes(range(256)) * 6000


async def sent(it: Talk, api: RelayApi, folder: Path) -> HeardFile:
    (folder / "sent").write_bytes(CONTENT)
    with (folder / "sent").open("rb") as source:
        attachment = await upload(api, it.conversation_id, source, filename="sent", mime="x/y")
    return HeardFile(it.conversation_id, attachment, {})


async def read(api: RelayApi, heard: HeardFile) -> bytes:
    into = BytesIO()
    await download(api, heard, into)
    return into.getvalue()


async def test_what_a_person_sends_is_read_whole_and_the_relay_keeps_it_when_it_is_killed(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "relay.db"))
    async with talk(tmp_path, *state) as (it, _), RelayApi(it.url, it.person.access_token) as person:
        heard = await sent(it, person, tmp_path)
        assert await read(person, heard) == CONTENT
    kept = [path.read_bytes() for path in (tmp_path / "relay.files").iterdir()]
    assert [hashlib.sha256(one).hexdigest() for one in kept] == [heard.attachment.sha256]
    assert CONTENT[:4096] not in kept[0]


async def test_the_relay_spoils_cuts_and_shortens_files_when_it_is_asked_to(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), RelayApi(it.url, it.person.access_token) as person:
        heard = await sent(it, person, tmp_path)
        for kind, error in (
            ("file_spoil", Unreadable),
            ("file_wrong_size", Unreadable),
            ("file_cut", httpx2.RemoteProtocolError),
            ("file_500", ApiRefused),
        ):
            await api.fault(kind, owner_id=it.person.user_id)
            with pytest.raises(error):
                await read(person, heard)
        assert await read(person, heard) == CONTENT


async def test_a_download_goes_on_from_a_byte_on_unless_the_relay_knows_no_ranges(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), RelayApi(it.url, it.person.access_token) as person:
        heard = await sent(it, person, tmp_path)
        headers = {"authorization": f"Bearer {it.person.access_token}", "range": "bytes=1000-"}
        where = f"{it.url}/files/{heard.attachment.attachment_id}"
        async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
            rest = await client.get(where)
            await api.fault("file_no_range", owner_id=it.person.user_id)
            whole = await client.get(where)
        assert (rest.status_code, whole.status_code) == (206, 200)
        assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
        assert rest.content == whole.content[1000:]
        assert (rest.headers.get("accept-ranges"), whole.headers.get("accept-ranges")) == ("bytes", None)


async def test_an_upload_expires_is_forgotten_is_spoiled_or_goes_to_a_presigned_place(tmp_path: Path) -> None:
    async with talk(tmp_path) as (it, api), RelayApi(it.url, it.person.access_token) as person:
        for kind, code in (
            ("file_expired", "UPLOAD_EXPIRED"),
            ("file_forget", "NOT_FOUND"),
            ("file_spoil", "SHA256_MISMATCH"),
            ("file_413", "FILE_TOO_LARGE"),
        ):
            await api.fault(kind, owner_id=it.person.user_id)
            with pytest.raises(ApiRefused) as refused:
                await sent(it, person, tmp_path)
            assert refused.value.code == code
        elsewhere = "http://localhost:1/presigned/{upload_id}?signature={signature}"
        await api.fault("file_elsewhere", owner_id=it.person.user_id, url=elsewhere)
        body = {"filename": "f", "content_type": "x/y", "size": 3, "conversation_id": it.conversation_id}
        announced = await person.call("POST", "/users/me/files", dict[str, str], body)
        presigned = announced["upload_url"].replace("http://localhost:1", it.url)
        assert announced["upload_id"] in presigned
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.put(presigned.rpartition("?")[0], content=b"abc")).status_code == 403
            with_token = {"authorization": f"Bearer {it.person.access_token}"}
            assert (await client.put(presigned, content=b"abc", headers=with_token)).status_code == 400
            assert (await client.put(presigned, content=b"abc")).status_code == 200


@pytest.mark.pure
@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("summary.md", "summary.md"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "file"),
        ("", "file"),
        ("a\0b\u202egpj.exe\n", "a_b_gpj.exe_"),
        ("x" * 300 + ".md", "x" * 77 + ".md"),
        ("Ü b.txt", "Ü b.txt"),
    ],
)
def test_a_name_of_the_agents_is_never_a_path(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.pure
def test_a_name_that_is_taken_is_counted_up(tmp_path: Path) -> None:
    assert free_path(tmp_path, "a.md").name == "a.md"
    (tmp_path / "a.md").touch()
    (tmp_path / "a (2).md").symlink_to("nowhere")
    assert free_path(tmp_path, "a.md").name == "a (3).md"


@pytest.mark.pure
def test_an_attachment_that_cannot_be_read_is_left_out() -> None:
    assert files_of("c", {"type": "file", "attachments": [{"attachment_id": "a"}, 7, None]}) == []
    assert files_of("c", {"type": "file", "attachments": "none"}) == []
