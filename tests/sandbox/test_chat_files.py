"""`/file` in the chat, and what is saved of what comes: with a relay, and no agent."""

from pathlib import Path

import msgspec
import pytest
import trio

from crypto.files import MAX_FILE_BYTES
from sandbox.api import RelayApi
from sandbox.chat_files import ChatFiles
from sandbox.files import HeardFile, upload
from sandbox.people import Person, make_person
from tests.sandbox.relay import relay
from tests.sandbox.simulated_agent import simulated_agent
from tests.waiting import waiting_for

CONTENT = bytes(range(256)) * 6000


async def test_a_file_is_sent_and_what_comes_is_saved_under_a_safe_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    async with relay(tmp_path) as (url, _), simulated_agent(url) as agent:
        person = await make_person(url, "Ada")
        conversation_id = await person.meet(agent.account.agent_id)
        files = ChatFiles(person, conversation_id, said.append)
        (tmp_path / "a b.txt").write_bytes(CONTENT)
        with (tmp_path / "large").open("wb") as large:
            large.truncate(MAX_FILE_BYTES + 1)
        for words in ("'a b.txt'", "absent", "", "large"):
            await files.send(f"/file {tmp_path / words.strip(chr(39)) if words else ''}")
        await files.answer("card", {"values": {}}, {"photo": tmp_path / "absent"})
        await files.answer("card", {"values": {"title": "x"}}, {"photo": tmp_path / "a b.txt"})
        assert said.pop() == "not answered, a file cannot be read: No such file or directory"
        assert [line.partition(",")[0].replace(str(tmp_path), "") for line in said] == [
            "sent a b.txt",
            "/absent cannot be read: No such file or directory",
            ". is no file; type /file PATH",
            "/large has 104",
        ]
        assert person.transcript.said(conversation_id) == ["[file] a b.txt, 1,536,000 bytes"]
        person.files += await from_the_agent(person, conversation_id, tmp_path / "a b.txt")
        said.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(files.run)
            with waiting_for("both files to be told of", 10):
                while len(said) < 2:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await person.close()
    saved = Path(said[0].removeprefix("saved "))
    assert saved.name == "_passwd"
    assert await trio.Path(saved).read_bytes() == CONTENT
    assert said[1].startswith("_passwd cannot be read: bad_ciphertext")
    assert list(saved.parent.iterdir()) == [saved]


async def from_the_agent(person: Person, conversation_id: str, path: Path) -> list[HeardFile]:
    """A file with a name that leads elsewhere, and the same with another hash."""
    async with RelayApi(person.url, person.account.access_token) as api:
        with path.open("rb") as source:
            attachment = await upload(api, conversation_id, source, filename="../passwd", mime="x/y")
    spoiled = msgspec.structs.replace(attachment, sha256="0" * 64)
    return [HeardFile(conversation_id, one, {}) for one in (attachment, spoiled)]
