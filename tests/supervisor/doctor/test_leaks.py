"""A leak that is planted is found and named by its place: in a file, in Redis, in a log, on a command line, in an environment."""

import base64
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import trio

from bus.records.keys import Keys
from supervisor.cli.leak_test import look_for_leaks
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding
from supervisor.doctor.leaks import look_into_files, look_into_logs, look_into_processes, needles_of
from supervisor.doctor.leaks_redis import look_into_redis
from supervisor.settings.secrets import NEXT_STORE_SECRET_FILE, RESTORE_JOURNAL_FILE
from tests.redis_server import running_redis
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.doctor.test_command import run, verdicts_of
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY, TOKEN, X25519_PRIVATE
from tests.world import world

CANARY = "leak-test-00112233445566778899aabbccddeeff"
KEEPER, SUPERVISOR, WORKER, STRANGER = 10, 11, 12, 99
STATUS = {"keeper": {"pid": KEEPER}, "supervisor": {"pid": SUPERVISOR}}


def hits(findings: list[Finding]) -> dict[str, str]:
    """Place → what stands there. None of them shows it."""
    for finding in findings:
        assert CANARY not in f"{finding}"
    named(findings)
    return {finding.name: finding.said for finding in findings if finding.verdict == "bad"}


def search(look: Any, case: Case, *where: Path) -> dict[str, str]:
    return hits(list(look(case, needles_of(case, CANARY), *where)))


@pytest.mark.pure
@pytest.mark.parametrize("unfinished", [RESTORE_JOURNAL_FILE, NEXT_STORE_SECRET_FILE])
def test_the_store_secret_is_searched_for_also_while_a_restore_or_a_rotation_is_unfinished(
    tmp_path: Path, unfinished: str
) -> None:
    secret = os.urandom(32)
    (tmp_path / "store.secret").write_bytes(secret)
    (tmp_path / unfinished).write_bytes(b"")
    (tmp_path / "note").write_bytes(secret)
    found = search(look_into_files, case_of(tmp_path))
    assert found == {f"file {tmp_path}/note": "the store secret stands there (as it is)"}


@pytest.mark.pure
def test_in_files_all_is_found_but_what_lawfully_stands_there(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    (state_dir / "redis" / "appendonlydir").mkdir(parents=True)
    secret = os.urandom(32)
    (state_dir / "store.secret").write_bytes(secret)
    case = case_of(state_dir)
    assert search(look_into_files, case) == {}
    planted = {
        "grants.head": f"x{TOKEN}".encode(),
        "redis/redis.log": CANARY.encode().hex().encode(),
        "redis/appendonlydir/a.incr.aof": b"z" * ((1 << 20) - 10) + base64.b64encode(b"to: " + CANARY.encode()),
        "note": secret,
    }
    for name, data in planted.items():
        (state_dir / name).write_bytes(data)
    (state_dir / "endless").symlink_to("/dev/zero")
    assert search(look_into_files, case) == {
        f"file {state_dir}/grants.head": "the token stands there (as it is)",
        f"file {state_dir}/redis/redis.log": "the canary stands there (hex)",
        f"file {state_dir}/redis/appendonlydir/a.incr.aof": "the canary stands there (base64)",
        f"file {state_dir}/note": "the store secret stands there (as it is)",
    }


def plant(client: redis.Redis, keys: Keys) -> dict[str, str]:
    """One leak in a value of each type, far behind; the key of each and the form."""
    hexed, coded = CANARY.encode().hex(), base64.b64encode(b"." + CANARY.encode())
    client.set(keys.cursor, b"a" * ((1 << 20) - 20) + CANARY.encode() + b"a" * 100_000)  # DUMP would compress it
    client.hset(keys.load, mapping={f"field{number}": "v" * 100 for number in range(700)})
    client.hset(keys.load, f"field-{hexed}", 1)
    client.rpush(keys.grant_log, *(f"{number}" for number in range(95)), coded)
    client.sadd(keys.owners, *(f"o{number}" for number in range(700)), CANARY)
    client.zadd(keys.busy, {**{f"c{number}": number for number in range(300)}, CANARY: 1000})
    for number in range(25):
        client.xadd(keys.dead, {"v": CANARY if number == 24 else "sealed"})
    client.set(keys.probe(CANARY), 1)
    return {
        f"Redis key {keys.cursor}": "as it is",
        f"Redis key {keys.load}": "hex",
        f"Redis key {keys.grant_log}": "base64",
        f"Redis key {keys.owners}": "as it is",
        f"Redis key {keys.busy}": "as it is",
        f"Redis key {keys.dead}": "as it is",
        f"Redis key {keys.probe('(hidden)')}": "as it is",
    }


def test_in_redis_every_key_and_every_type_of_value_is_searched(tmp_path: Path) -> None:
    keys = Keys(AGENT_ID)
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        case = case_of(tmp_path / "state", HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY)
        assert search(look_into_redis, case) == {}
        planted = plant(client, keys)
        client.set("another's", CANARY)
        for number in range(1200):  # more than a page of keys
            client.set(keys.conversation(str(number)), "sealed")
        found = search(look_into_redis, case)
    assert found == {name: f"the canary stands there ({form})" for name, form in planted.items()}


def test_a_redis_that_cannot_be_searched_is_unknown(tmp_path: Path) -> None:
    away = case_of(tmp_path, HASHEE_REDIS_URL="redis://127.0.0.1:1", HASHEE_STORE_KEY=STORE_KEY)
    assert named(look_into_redis(away, needles_of(away, None)))["leaks: Redis"].verdict == "unknown"
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        case = case_of(tmp_path, HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY)
        client.set(Keys(AGENT_ID).cursor, "1")
        client.execute_command("ACL", "SETUSER", "default", "-getrange")
        refused = named(look_into_redis(case, needles_of(case, None)))["leaks: Redis"]
        assert refused.said == "1 keys were searched, then: forbidden"
        client.client_pause(60_000, all=True)
        case = replace(case, search_answer_seconds=0.05)
        assert named(look_into_redis(case, needles_of(case, None)))["leaks: Redis"].said.endswith("away")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """/proc with keeper, supervisor, a worker, and somebody else."""
    for pid, parent, title in (
        (KEEPER, 1, b"hashee-agent: keeper"),
        (SUPERVISOR, KEEPER, b"hashee-agent: supervisor"),
        (WORKER, SUPERVISOR, b"hashee-agent: worker 1"),
        (STRANGER, 1, b"editor"),
    ):
        process = tmp_path / "proc" / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "cmdline").write_bytes(title + b"\0")
        (process / "environ").write_bytes(b"PATH=/bin\0")
        (process / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1", encoding="ascii")
    return tmp_path / "proc"


@pytest.mark.pure
def test_in_processes_the_token_may_stand_with_keeper_and_supervisor_and_nowhere_else(
    tmp_path: Path, proc: Path
) -> None:
    case = case_of(tmp_path / "state", STATUS)
    for pid in (KEEPER, SUPERVISOR, STRANGER):
        (proc / str(pid) / "environ").write_bytes(f"HASHEE_AGENT_TOKEN={TOKEN}\0".encode())
    assert search(look_into_processes, case, proc) == {}
    (proc / str(WORKER) / "environ").write_bytes(f"A=1\0K={X25519_PRIVATE}\0".encode())
    (proc / str(SUPERVISOR) / "environ").write_bytes(f"LAST={CANARY}\0".encode())
    (proc / str(STRANGER) / "cmdline").write_bytes(f"curl\0-H\0Bearer {TOKEN}\0".encode())
    assert search(look_into_processes, case, proc) == {
        f"environment of process {WORKER}": "the X25519 key stands there (base64)",
        f"environment of process {SUPERVISOR}": "the canary stands there (as it is)",
        f"command line of process {STRANGER}": "the token stands there (as it is)",
    }


@pytest.mark.pure
def test_in_logs_files_are_searched_and_what_goes_elsewhere_is_said(tmp_path: Path, proc: Path) -> None:
    case = case_of(tmp_path / "state", STATUS)
    log = tmp_path / "agent.log"
    log.write_text(f"a line\nanother with {CANARY}\n", encoding="ascii")
    for pid in (KEEPER, WORKER):
        (proc / str(pid) / "fd" / "2").symlink_to(log)
    assert search(look_into_logs, case, proc) == {f"log {log}": "the canary stands there (as it is)"}
    (proc / str(WORKER) / "fd" / "1").symlink_to("pipe:[122]")  # to its supervisor
    assert "leaks: log elsewhere" not in named(look_into_logs(case, needles_of(case, CANARY), proc))
    (proc / str(SUPERVISOR) / "fd" / "1").symlink_to("pipe:[123]")
    finding = named(look_into_logs(case, needles_of(case, CANARY), proc))["leaks: log elsewhere"]
    assert finding.verdict == "unknown"
    assert "leak-test-" in finding.remedy


def test_the_journal_of_the_service_is_searched(tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "journalctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked; echo a line with {CANARY}\n', encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    (proc / str(SUPERVISOR) / "fd" / "2").symlink_to("socket:[123]")
    (proc / str(SUPERVISOR) / "cgroup").write_text("0::/system.slice/hashee-agent.service\n", encoding="ascii")
    case = case_of(tmp_path / "state", STATUS)
    assert search(look_into_logs, case, proc) == {"journal": "the canary stands there (as it is)"}
    asked = (tmp_path / "asked").read_text(encoding="ascii")
    assert asked.strip() == "--no-pager --output=cat --since=-1h --unit=hashee-agent.service"


def test_without_an_agent_no_canary_is_sent_and_the_secrets_are_searched_for(tmp_path: Path) -> None:
    (tmp_path / "note").write_text(TOKEN, encoding="ascii")
    found = look_for_leaks(case_of(tmp_path))
    assert named(found)["leaks: canary"].verdict == "unknown"
    assert hits(found) == {f"file {tmp_path}/note": "the token stands there (as it is)"}


@pytest.mark.long
async def test_a_handler_that_prints_what_it_was_told_is_found_out(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.supervisor.doctor.leaky:agent") as running:
        done = await trio.to_thread.run_sync(lambda: run(running.environment, "--leak-test", "--json"))
    assert done.returncode == 1
    found = verdicts_of(done)
    assert found["leaks: canary"] == "ok"
    assert [name for name, verdict in found.items() if verdict == "bad"] == [f"leaks: log {tmp_path}/up.log"]
    said = re.search(r"they said (leak-test-\w{32})", (tmp_path / "up.log").read_text(encoding="utf-8"))
    assert said is not None
    assert said[1] not in done.stdout + done.stderr
