"""Workers and a file gate with a certificate: a private authority is believed where it is named, and whatever does not fit is refused with the
setting that helps.
"""

import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from bus.settings.files_place import files_place_of
from bus.settings.reader import SettingsReader
from sandbox.children import running
from supervisor.files.key_file import write_files_key
from supervisor.files.process import run_files
from supervisor.settings.files import FilesSettings
from tests.bus.transport.authority import Authority
from tests.commands import run_command
from tests.files_world import HANDLER, SECONDS, comes_back, content_of
from tests.sandbox.relay import Talk, talk
from tests.supervisor.files.calling import KEY
from tests.waiting import waiting_for
from tests.world import free_port, world
from workers.files.gate import NO_TLS, GateClient, GateFailed
from workers.files.patience import error_of

SEALED = os.urandom(64 * 1024) * 50
FILES = (sys.executable, "-m", "supervisor", "files")


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Authority, dict[str, str]]:
    """A private authority, and what a gate is told of the certificate that it signed, which is for 127.0.0.1."""
    return authority_in(tmp_path / "ca")


def authority_in(folder: Path) -> tuple[Authority, dict[str, str]]:
    folder.mkdir()
    authority = Authority(folder)
    certificate, key = authority.sign("gate")
    return authority, {"HASHEE_FILES_CERT": str(certificate), "HASHEE_FILES_CERT_KEY": str(key)}


@asynccontextmanager
async def gate(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Talk, int]]:
    """A relay, a gate on a port in front of it, which is told these settings, and the port."""
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    write_files_key(state_dir, KEY)
    async with talk(tmp_path) as (it, _), trio.open_nursery() as nursery:
        environ = {
            "HASHEE_AGENT_ID": it.agent.agent_id,
            "HASHEE_AGENT_TOKEN": it.agent.token,
            "HASHEE_BASE_URL": it.url,
            "HASHEE_STATE_DIR": str(state_dir),
        }
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        nursery.start_soon(run_files, FilesSettings.from_environ(environ | settings), listener)
        yield it, port
        nursery.cancel_scope.cancel()


def client(url: str, authority: Authority | None = None) -> GateClient:
    """A worker's way to the gate there."""
    named = {} if authority is None else {"HASHEE_FILES_CA": str(authority.certificate)}
    place = files_place_of(SettingsReader({"HASHEE_FILES_URL": url, **named}))
    assert place is not None
    return GateClient(place, KEY)


async def refusal(of: GateClient) -> tuple[str, str]:
    """Its word, and what a handler hears of it, which does not come to be tried again."""
    with pytest.raises(GateFailed) as failed:
        await of.confirm("upload-1", "0" * 64)
    assert not failed.value.retry
    return failed.value.reason, str(error_of(failed.value))


async def test_a_file_goes_there_and_back_through_tls(tmp_path: Path, signed: tuple[Authority, dict[str, str]]) -> None:
    authority, certificate = signed

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(SEALED), 100_000):
            yield SEALED[at : at + 100_000]

    async with gate(tmp_path, **certificate) as (it, port):
        one = client(f"https://127.0.0.1:{port}", authority)
        announced = await one.announce(it.conversation_id, len(SEALED))
        await one.put(announced, len(SEALED), pieces)
        attachment_id = await one.confirm(announced.upload_id, hashlib.sha256(SEALED).hexdigest())
        async with one.get(attachment_id, len(SEALED), 0) as given:
            assert b"".join([bytes(piece) async for piece in given.pieces]) == SEALED
        async with one.get(attachment_id, len(SEALED), len(SEALED) - 7) as given:
            assert (given.first_byte, b"".join([bytes(piece) async for piece in given.pieces])) == (
                len(SEALED) - 7,
                SEALED[-7:],
            )


async def test_a_certificate_that_does_not_fit_is_refused_with_the_setting_that_helps(
    tmp_path: Path, signed: tuple[Authority, dict[str, str]]
) -> None:
    authority, certificate = signed
    stranger, _ = authority_in(tmp_path / "stranger")
    async with gate(tmp_path, **certificate) as (_, port):
        here, named = f"https://127.0.0.1:{port}", f"https://localhost:{port}"
        for of, helps in (
            (client(here), "HASHEE_FILES_CA must name a PEM file"),
            (client(here, stranger), "HASHEE_FILES_CA must name a PEM file"),
            (client(named, authority), "HASHEE_FILES_URL must have a name that the certificate has"),
        ):
            reason, said = await refusal(of)
            assert reason == NO_TLS
            assert "the file gate's certificate is refused" in said
            assert helps in said


async def test_tls_on_one_side_alone_is_said_by_the_other(
    tmp_path: Path, signed: tuple[Authority, dict[str, str]]
) -> None:
    authority, certificate = signed
    async with gate(tmp_path) as (_, port):
        reason, said = await refusal(client(f"https://127.0.0.1:{port}", authority))
        assert (reason, "speaks no TLS: HASHEE_FILES_URL=http://" in said) == (NO_TLS, True)
    (tmp_path / "state").rename(tmp_path / "before")
    async with gate(tmp_path, **certificate) as (_, port):
        reason, said = await refusal(client(f"http://127.0.0.1:{port}"))
        assert (reason, "the file gate speaks TLS: HASHEE_FILES_URL must begin with https://" in said) == (
            "bad_call",
            True,
        )


@pytest.mark.long
async def test_workers_reach_a_gate_of_its_own_by_tls_and_a_certificate_of_a_stranger_costs_one_file_that_comes_again(
    tmp_path: Path, signed: tuple[Authority, dict[str, str]]
) -> None:
    authority, certificate = signed
    _, strange = authority_in(tmp_path / "stranger")
    port = free_port()
    told = {
        "HASHEE_HANDLER": HANDLER,
        "HASHEE_FILES_URL": f"https://127.0.0.1:{port}",
        "HASHEE_FILES_CA": str(authority.certificate),
    }
    async with world(tmp_path, **told) as it:
        environ = {**it.environment, "HASHEE_FILES_LISTEN": f"127.0.0.1:{port}"}
        [person] = it.people
        conversation = it.conversations[person]
        async with running("files", FILES, log_path=tmp_path / "gate.log", environment=environ | certificate):
            await comes_back(it, content_of(3 * 1024 * 1024, 1), "one.txt")
        async with running("files", FILES, log_path=tmp_path / "gate.log", environment=environ | strange):
            heard = len(person.transcript.heard(conversation))
            await person.send_file(conversation, content_of(100_000, 2), name="two.txt")
            with waiting_for("the apology", SECONDS, it.last_lines):
                await person.transcript.until(lambda: len(person.transcript.heard(conversation)) > heard)
        assert "the file gate's certificate is refused" in it.log()
        assert "HASHEE_FILES_CA must name a PEM file" in it.log()
        async with running("files", FILES, log_path=tmp_path / "gate.log", environment=environ | certificate):
            retry = partial(run_command, "dead", "retry", "--all", environ=it.environment)
            retried = await trio.to_thread.run_sync(retry)
            assert retried.returncode == 0, retried
            digest = hashlib.sha256(content_of(100_000, 2)).hexdigest()
            with waiting_for("the file to come back", SECONDS, it.last_lines):
                await person.transcript.until(lambda: digest in person.transcript.heard(conversation))
