"""The way to the file gate and the spool, each fault on a real gate or a real folder."""

import base64
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
import trio

from bus.files.proofs import FilesKey
from supervisor.doctor.case import Case
from supervisor.doctor.file_gate import look_at_file_gate
from supervisor.doctor.findings import Finding
from supervisor.doctor.spool import look_at_spool
from supervisor.files.key_file import FILES_KEY_FILE, write_files_key
from supervisor.files.process import run_files
from supervisor.settings.files import FilesSettings
from tests.bus.transport.authority import Authority
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.settings.environment import AGENT_ID, TOKEN
from tests.supervisor.web_server import response, web_server

KEY = FilesKey(bytes(range(32)))
MIB = 1 << 20


async def found(case: Case) -> dict[str, Finding]:
    """It runs in a thread of its own, as in the command."""
    return named(await trio.to_thread.run_sync(list, look_at_file_gate(case)))


def verdicts(findings: Mapping[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict.value for name, finding in findings.items()}


@asynccontextmanager
async def gate(folder: Path, key: FilesKey | None = KEY, /, **settings: str) -> AsyncIterator[int]:
    """A gate by itself with its own state directory, in which there is this key: its port. Its relay is away, and nobody asks it."""
    state_dir = folder / f"gate {time.monotonic_ns()}"
    state_dir.mkdir(mode=0o700)
    if key is not None:
        write_files_key(state_dir, key)
    environ = {"HASHEE_AGENT_ID": AGENT_ID, "HASHEE_AGENT_TOKEN": TOKEN, "HASHEE_BASE_URL": "http://127.0.0.1:1"}
    told = FilesSettings.from_environ(environ | {"HASHEE_STATE_DIR": str(state_dir)} | settings)
    async with trio.open_nursery() as nursery:
        listener = create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        nursery.start_soon(run_files, told, listener)
        yield port
        nursery.cancel_scope.cancel()


def case_with(folder: Path, key: FilesKey | None = KEY, /, **environ: str) -> Case:
    """A supervisor's host whose state directory has this key of the gate's callers."""
    state_dir = folder / "state"
    state_dir.mkdir(mode=0o700, exist_ok=True)
    (state_dir / FILES_KEY_FILE).unlink(missing_ok=True)
    if key is not None:
        write_files_key(state_dir, key)
    return case_of(state_dir, None, **environ)


async def test_a_gate_that_knows_us_is_well(tmp_path: Path) -> None:
    async with gate(tmp_path) as port:
        findings = await found(case_with(tmp_path, HASHEE_FILES_URL=f"http://127.0.0.1:{port}"))
        assert verdicts(findings) == dict.fromkeys(("file gate: way", "file gate: key", "clock: file gate"), "ok")
        given = base64.b64encode(KEY.export()).decode()
        elsewhere = case_with(
            tmp_path, FilesKey(bytes(32)), HASHEE_FILES_URL=f"http://127.0.0.1:{port}", HASHEE_FILES_KEY=given
        )
        assert (await found(elsewhere))["file gate: key"].verdict == "ok"


async def test_a_gate_with_another_key_or_none_is_bad_with_the_command_that_shows_it(tmp_path: Path) -> None:
    async with gate(tmp_path) as port:
        url = f"http://127.0.0.1:{port}"
        other = (await found(case_with(tmp_path, FilesKey(bytes(32)), HASHEE_FILES_URL=url)))["file gate: key"]
        assert (other.verdict, "bad_proof" in other.said) == ("bad", True)
        assert "hashee-agent keys files" in other.remedy
        unknown = (await found(case_with(tmp_path, None, HASHEE_FILES_URL=url)))["file gate: key"]
        assert unknown.verdict == "unknown"
    async with gate(tmp_path, None) as port:
        none = (await found(case_with(tmp_path, HASHEE_FILES_URL=f"http://127.0.0.1:{port}")))["file gate: key"]
    assert (none.verdict, "HASHEE_STATE_DIR" in none.remedy) == ("bad", True)


async def answer(body: bytes, _asked: object, stream: trio.SocketStream) -> None:
    await stream.send_all(response(body))


async def test_a_clock_that_the_gate_does_not_take_is_said_with_the_difference(tmp_path: Path) -> None:
    stale = b'{"ok":false,"checks":[{"name":"files","ok":true,"detail":""},{"name":"proof","ok":false,"detail":"stale_proof: differs by 90 s"}]}'
    async with web_server(partial(answer, stale)) as url:
        findings = await found(case_with(tmp_path, HASHEE_FILES_URL=url))
    assert (findings["clock: file gate"].verdict, findings["file gate: key"].verdict) == ("bad", "ok")
    assert "differs by 90 s" in findings["clock: file gate"].said
    assert "timedatectl" in findings["clock: file gate"].remedy


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"ok":true}'])
async def test_something_else_at_its_address_is_bad(tmp_path: Path, body: bytes) -> None:
    async with web_server(partial(answer, body)) as url:
        finding = (await found(case_with(tmp_path, HASHEE_FILES_URL=url)))["file gate: way"]
    assert (finding.verdict, "is no file gate" in finding.said) == ("bad", True)


async def test_a_gate_that_is_not_there_or_does_not_answer_is_bad(tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hangs = (await found(replace(case_with(tmp_path, HASHEE_FILES_URL=url), answer_seconds=0.2)))["file gate: way"]
    gone = (await found(case_with(tmp_path, HASHEE_FILES_URL=url)))["file gate: way"]
    assert (hangs.verdict, "no answer within" in hangs.said) == ("bad", True)
    assert (gone.verdict, "healthcheck --files" in gone.remedy) == ("bad", True)


async def test_tls_that_does_not_fit_names_the_setting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("gate")
    tls = {"HASHEE_FILES_CERT": str(certificate), "HASHEE_FILES_CERT_KEY": str(key)}
    ours = {"HASHEE_FILES_CA": str(authority.certificate)}
    async with gate(tmp_path, **tls) as port:
        here = f"https://127.0.0.1:{port}"
        good = await found(case_with(tmp_path, HASHEE_FILES_URL=here, **ours))
        assert good["file gate: certificate"].verdict == "bad", "it is good for a day"
        assert "HASHEE_FILES_CERT" in good["file gate: certificate"].remedy
        assert good["file gate: key"].verdict == "ok"
        strange = (await found(case_with(tmp_path, HASHEE_FILES_URL=here)))["file gate: TLS"]
        assert (strange.verdict, "HASHEE_FILES_CA" in strange.remedy) == ("bad", True)
        plain = (await found(case_with(tmp_path, HASHEE_FILES_URL=here.replace("https", "http"))))["file gate: TLS"]
        assert (plain.verdict, "https://" in plain.remedy) == ("bad", True)
    async with gate(tmp_path) as port:
        there = f"https://127.0.0.1:{port}"
        none = (await found(case_with(tmp_path, HASHEE_FILES_URL=there, **ours)))["file gate: TLS"]
        assert (none.verdict, "speaks no TLS" in none.said) == ("bad", True)


def status(**files: Any) -> dict[str, Any]:
    return {
        "keeper": {"files": {"url": "unix:///nowhere/files.sock", "pid": 0, "deaths": 0, **files}},
        "supervisor": None,
    }


async def test_the_gate_of_up_is_not_started_by_looking_at_it_and_its_deaths_are_told(tmp_path: Path) -> None:
    idle = await found(replace(case_with(tmp_path), status=status()))
    assert (idle["file gate: way"].verdict, "none runs" in idle["file gate: way"].said) == ("ok", True)
    died = await found(replace(case_with(tmp_path), status=status(pid=7, deaths=2)))
    assert verdicts(died) == {"file gate: deaths": "warn", "file gate: way": "bad"}
    assert verdicts(await found(case_with(tmp_path))) == {"file gate: way": "unknown"}
    assert verdicts(await found(case_with(tmp_path, HASHEE_FILES_URL="none"))) == {"file gate: way": "ok"}


def spool(case: Case, free_mib: int = 10_000, file_system: str = "ext4") -> dict[str, Finding]:
    blocks = free_mib * MIB // 4096
    disk = os.statvfs_result((4096, 4096, 1 << 30, blocks, blocks, 0, 0, 0, 0, 255))
    return named(look_at_spool(case, lambda _: disk, lambda _: file_system))


@pytest.mark.pure
def test_a_spool_that_others_can_open_or_that_is_none_is_bad(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    case = case_with(tmp_path, HASHEE_SPOOL_DIR=str(folder))
    assert spool(case)["spool: folder"].verdict == "ok"
    assert "not there yet" in spool(case)["spool: folder"].said
    folder.mkdir(mode=0o700)
    assert verdicts(spool(case)) == {"spool: folder": "ok", "spool: files": "ok", "spool: room": "ok"}
    assert spool(case, file_system="tmpfs")["spool: disk"].verdict == "warn"
    folder.chmod(0o755)
    assert spool(case)["spool: folder"].remedy == f"chmod 700 {folder}"
    folder.rmdir()
    folder.write_bytes(b"")
    assert (spool(case)["spool: folder"].verdict, "is no folder" in spool(case)["spool: folder"].said) == ("bad", True)
    assert spool(case_with(tmp_path, HASHEE_FILES_URL="none")) == {}


@pytest.mark.pure
def test_a_disk_with_less_room_than_the_quota_is_a_warning_and_one_without_room_for_a_file_is_bad(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    with (folder / "one.sealed").open("wb") as file:
        file.truncate(100 * MIB)
    case = case_with(tmp_path, HASHEE_SPOOL_DIR=str(folder), HASHEE_SPOOL_MB="600")
    for free_mib, verdict in ((600, "ok"), (499, "warn"), (190, "bad")):
        finding = spool(case, free_mib)["spool: room"]
        assert (finding.verdict, "100 of 600 may be used" in finding.said) == (verdict, True)
    assert "HASHEE_SPOOL_MB" in spool(case, 1)["spool: room"].remedy
    assert spool(case)["spool: files"].verdict == "ok"
    two_days_ago = time.time() - 2 * 86_400
    os.utime(folder / "one.sealed", (two_days_ago, two_days_ago))
    old = spool(case)["spool: files"]
    assert (old.verdict, "100.0 MiB wait, the oldest for 2880 minutes" in old.said) == ("warn", True)
