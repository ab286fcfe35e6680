"""When the last backup was made: noted once it is whole, told by `status` and `doctor`, as old after a restore as before."""

import base64
import io
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pyrage  # type: ignore[import-untyped]
import pytest
import redis
from rich.console import Console

from bus.records.keys import Keys
from bus.steps.last_backup import MOST_RECIPIENTS, LastBackup, dated_ms, last_backup, note_backup
from bus.transport.client import open_redis
from supervisor.backup.making import Making
from supervisor.backup.restoring import Restore, Wishes
from supervisor.cli.status_page import page
from supervisor.doctor.backups import look_at_backups
from supervisor.doctor.findings import Finding
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.supervisor import SupervisorSettings
from tests.redis_server import redis_server, running_redis
from tests.supervisor.backup.builders import FINGERPRINT, IDENTITY, KEY, KEYSTORE, LOCK, NAMES, SECRET, filled
from tests.supervisor.cli.keys.running import environ_of, run
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.doctor.test_disk_and_agent import status
from tests.supervisor.settings.environment import STORE_KEY, agent_environ

HOUR_MS = 3_600_000


def made(made_ms: int, size_bytes: int = 5 << 20) -> LastBackup:
    return LastBackup.of(made_ms, size_bytes, FINGERPRINT, sealed_to=["age1x"], place="/var/backups/one.backup")


async def test_of_two_that_end_in_another_order_the_later_one_is_the_last_and_one_note_is_kept(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            assert await last_backup(client, NAMES) is None
            for made_ms in (2000, 1000):
                await note_backup(client, NAMES.last_backup, made(made_ms))
            assert await last_backup(client, NAMES) == made(2000)
            assert await client.command("ZCARD", NAMES.last_backup) == 1
            ahead = made(int(time.time() * 1000) + HOUR_MS)  # Redis' clock was an hour ahead then
            await client.command("ZADD", NAMES.last_backup, ahead.made_ms, msgspec.json.encode(ahead))
            await note_backup(client, NAMES.last_backup, made(2500))
            assert await last_backup(client, NAMES) == made(2500)
            await client.command("ZADD", NAMES.last_backup, 3000, b'{"of": "a later version"}')
            assert await last_backup(client, NAMES) is None


@pytest.mark.pure
def test_a_note_is_small_whatever_is_noted() -> None:
    note = LastBackup.of(1, 2, FINGERPRINT, sealed_to=["age1x"] * 100, place="/very/long" * 1000)
    assert note.sealed_to == ("age1x",) * MOST_RECIPIENTS
    assert len(msgspec.json.encode(note)) < 1000
    no_text = LastBackup.of(1, 2, FINGERPRINT, sealed_to=None, place=os.fsdecode(b"/var/\xff.age"))
    assert msgspec.json.decode(msgspec.json.encode(no_text))["place"] == r"/var/\udcff.age"


@pytest.mark.pure
def test_of_one_that_is_dated_ahead_the_metric_says_that_none_is_known() -> None:
    assert dated_ms(None, 5000) == 0
    assert dated_ms(made(2000), 1000) == 2000  # two servers' clocks are never quite alike
    assert dated_ms(made(HOUR_MS), 1000) == 0


async def test_a_backup_is_noted_and_one_that_is_restored_keeps_its_time(tmp_path: Path) -> None:
    secret = base64.b64encode(SECRET.reveal()).decode()
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with redis_server(tmp_path / "1") as url, redis_server(tmp_path / "2") as other_url:
        async with open_redis(url) as client, open_redis(other_url) as other:
            making, file = await filled(client), io.BytesIO()
            await making.write(LOCK, file)
            await making.note(LOCK, "a place")
            noted = await last_backup(client, NAMES)
            assert noted is not None
            assert (noted.size_bytes, noted.place, noted.fingerprint) == (
                len(file.getvalue()),
                "a place",
                FINGERPRINT.hex(),
            )
            assert noted.sealed_to == LOCK.sealed_to
            assert len(LOCK.sealed_to) == 1
            assert 0 <= time.time() * 1000 - noted.made_ms < 60_000

            later = io.BytesIO()
            await Making(client, NAMES, KEYSTORE, SECRET).write(LOCK, later)  # which holds no note of the one before
            given = agent_environ(
                HASHEE_STATE_DIR=str(tmp_path / "state"), HASHEE_REDIS_URL=other_url, HASHEE_STORE_KEY=secret
            )
            (tmp_path / "state").mkdir()
            restore = Restore(KeySettings.from_environ(given), IDENTITY.public.pair, file, lambda _: KEY)
            wishes = Wishes(FINGERPRINT)
            await restore.run(restore.prove(wishes), wishes, -1)
            restored = await last_backup(other, NAMES)
            assert restored is not None
            assert (restored.made_ms, restored.size_bytes) == (noted.made_ms, noted.size_bytes)
            assert restored.sealed_to is None


def test_a_redis_that_takes_no_writes_has_a_backup_all_the_same_and_it_is_said_that_it_is_not_noted(
    tmp_path: Path,
) -> None:
    sealed_to = {"HASHEE_BACKUP_RECIPIENTS": LOCK.sealed_to[0]}
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        given = environ_of(tmp_path, HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY, **sealed_to)
        first = backup(given, tmp_path, "first.backup")
        assert "could not be noted" not in first.stderr
        assert client.zcard(Keys(given["HASHEE_AGENT_ID"]).last_backup) == 1
        client.config_set("maxmemory", 1)
        second = backup(given, tmp_path, "second.backup")
        assert "the backup is whole; that it was made could not be noted" in second.stderr
    assert {path.name for path in tmp_path.glob("*.backup")} == {"first.backup", "second.backup"}


def backup(environ: dict[str, str], folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    made = run("backup", name, environ=environ, cwd=folder)
    assert made.returncode == 0, made.stderr
    return made


@pytest.mark.pure
@pytest.mark.parametrize(
    ("environ", "hours"),
    [
        ({}, 0),
        ({"HASHEE_BACKUP_RECIPIENTS": "age1x"}, 36),
        ({"HASHEE_BACKUP_RECIPIENTS": "age1x", "HASHEE_BACKUP_MAX_AGE_HOURS": "0"}, 0),
        ({"HASHEE_BACKUP_MAX_AGE_HOURS": "1.5"}, 1.5),
    ],
)
def test_an_age_is_expected_of_whoever_says_that_backups_are_made(environ: dict[str, str], hours: float) -> None:
    given = agent_environ(**environ)
    assert SupervisorSettings.from_environ(given).backup_max_age_seconds == hours * 3600


def test_the_doctor_tells_its_age_against_what_it_may_have(tmp_path: Path) -> None:
    def findings(**more: str) -> dict[str, Finding]:
        case = case_of(tmp_path, None, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY, **more)
        return named(look_at_backups(case))

    def look(hours: str) -> Finding:
        return findings(HASHEE_BACKUP_MAX_AGE_HOURS=hours)["backup: age"]

    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        url = server.url
        assert (look("0").verdict, look("36").verdict) == ("ok", "warn")
        assert "hashee-agent backup" in look("36").remedy
        key = Keys(case_of(tmp_path).agent_id or "").last_backup
        for hours_ago, verdict in ((1, "ok"), (35, "ok"), (37, "warn"), (200, "bad")):
            client.delete(key)
            note = made(int(time.time() * 1000) - hours_ago * HOUR_MS)
            client.zadd(key, {msgspec.json.encode(note): note.made_ms})
            finding = look("36")
            assert (finding.verdict, f"made {hours_ago}.0 h ago, 5.0 MiB, sealed to 1 age key" in finding.said) == (
                verdict,
                True,
            )
            assert look("0").verdict == "ok"
        ahead = made(int(time.time() * 1000) + 5 * HOUR_MS)
        client.zadd(key, {msgspec.json.encode(ahead): ahead.made_ms})
        assert look("36").verdict == "warn"
        assert "dated 5.0 h ahead of Redis' clock, so its age is not known" in look("0").said
        own, another = LOCK.sealed_to[0], str(pyrage.x25519.Identity.generate().to_public())
        client.delete(key)
        note = LastBackup.of(1, 1, FINGERPRINT, sealed_to=[own], place="p")
        client.zadd(key, {msgspec.json.encode(note): 1})
        for wanted, verdict in ((own, "ok"), (another, "warn"), (f"{own},{another}", "warn")):
            assert findings(HASHEE_BACKUP_RECIPIENTS=wanted)["backup: recipients"].verdict == verdict
        assert "backup: recipients" not in findings()
    assert look("36").verdict == "unknown"


@pytest.mark.pure
def test_status_shows_it_to_people() -> None:
    now_ms = int(time.time() * 1000)
    assert "backup" not in shown(backup_max_age_seconds=0, last_backup=None)
    assert "none of this store is known" in shown(backup_max_age_seconds=3600, last_backup=None)
    late = msgspec.to_builtins(made(now_ms - 2 * HOUR_MS - 500))
    assert "2 h 0 min ago, older than 1 h, 5.0 MiB" in shown(backup_max_age_seconds=3600, last_backup=late)
    assert "2 h 0 min ago, 5.0 MiB, /var/backups" in shown(backup_max_age_seconds=0, last_backup=late)
    ahead = msgspec.to_builtins(made(now_ms + 2 * HOUR_MS + 30_000))
    assert "dated 2 h 0 min ahead of Redis' clock, so its age is not known" in shown(last_backup=ahead)


def shown(**changes: Any) -> str:
    work = dict.fromkeys(("waiting", "queued", "running", "due", "unsent", "unacknowledged", "dead_letters"), 0)
    whole = {
        "version": "1",
        "rates": {"received": 0, "sent": 0, "received_per_minute": 0.0, "sent_per_minute": 0.0},
        "people": 1,
        "sessions": 1,
        "redis": None,
        "workers": [],
        "workers_elsewhere": [],
        "connection": {**status()["supervisor"]["connection"], "heard_seconds_ago": 1.0},
        "work": {**work, "quarantined": 0, "held_senders": 0, "notes": 0},
        "pool": {"ready": 1, "wanted": 1, "size": "1", "reloading": False, "reload_problem": "", "crash_loop": None},
    }
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(page(status(**{**whole, **changes})))
    return capture.get()
