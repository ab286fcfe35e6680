"""`hashee-agent restore` as an operator calls it: refused where something would be lost, and otherwise all of it is back."""

import base64
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest
import trio

from bus.records.keys import Keys
from bus.transport.client import open_redis
from bus.whole.restore_switch import RestoreSwitch
from supervisor.keeper.state_directory import take_lock
from tests.redis_server import redis_server
from tests.supervisor.backup.test_restoring import THEIR_OWN
from tests.supervisor.cli.keys.running import PROGRAM, environ_of, look, make_store, open_store, run
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY

NAMES = Keys(AGENT_ID)
OWN_KEYS = ("HASHEE_X25519_PRIVATE_BASE64", "HASHEE_ED25519_PRIVATE_BASE64")


class Host:
    """A home with a passphrase in a file."""

    def __init__(self, directory: Path, **more: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.state_dir = directory / "state"
        (directory / "passphrase").write_text("many words\n", encoding="utf-8")
        self.environ = environ_of(directory, HASHEE_BACKUP_PASSPHRASE_FILE=str(directory / "passphrase"), **more)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, environ=self.environ, cwd=self.directory)

    def backup(self, file: Path) -> str:
        """Makes one; the fingerprint of its author."""
        made = self.run("backup", str(file))
        assert made.returncode == 0, made.stderr
        return made.stderr.split("signed by ")[1].split(";")[0]


def without_own(found: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in found.items() if key not in THEIR_OWN}


def test_a_lost_host_comes_back_on_another_one_with_the_keys_and_all_that_waited(tmp_path: Path) -> None:
    lost, file = Host(tmp_path / "1"), tmp_path / "agent.backup"
    before = make_store(lost.environ)
    fingerprint = lost.backup(file)
    found = Host(tmp_path / "2", **dict.fromkeys(OWN_KEYS, ""))
    wrong = found.run("restore", str(file), "--fingerprint", "00" * 16)
    assert (wrong.returncode, fingerprint in wrong.stderr) == (1, True)
    assert not (found.state_dir / "redis").exists()
    done = found.run("restore", str(file), "--fingerprint", fingerprint)
    assert done.returncode == 0, done.stderr
    assert "2 people" in done.stdout
    assert "What people notice" in done.stdout
    assert (found.state_dir / "store.secret").read_bytes() == (lost.state_dir / "store.secret").read_bytes()
    keystore = found.directory / ".hashee" / AGENT_ID / "keystore.json"
    assert keystore.stat().st_mode & 0o777 == 0o600
    shown = found.run("keys", "show")
    assert fingerprint in shown.stdout
    assert without_own(look(found.environ)) == without_own(before)
    left = {path.name for path in found.state_dir.iterdir()}
    assert {name for name in left if "restor" in name} <= {name for name in left if name.startswith("before-restore-")}


def test_other_identity_keys_that_systemd_hands_over_are_not_passed_over(tmp_path: Path) -> None:
    lost, file = Host(tmp_path / "1"), tmp_path / "agent.backup"
    make_store(lost.environ)
    fingerprint = lost.backup(file)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in OWN_KEYS:
        (credentials / name.lower()).write_bytes(base64.b64encode(os.urandom(32)))
    found = Host(tmp_path / "2", **dict.fromkeys(OWN_KEYS, ""), CREDENTIALS_DIRECTORY=str(credentials))
    refused = found.run("restore", str(file), "--fingerprint", fingerprint)
    assert refused.returncode == 1
    assert "has other identity keys than the backup" in refused.stderr
    assert not (found.directory / ".hashee").exists()
    assert not (found.state_dir / "redis").exists()


def test_over_a_newer_store_it_is_refused_unless_that_is_named_and_then_the_old_one_is_kept(tmp_path: Path) -> None:
    host, file = Host(tmp_path), tmp_path / "agent.backup"
    before = make_store(host.environ)
    fingerprint = host.backup(file)
    add_to(host, "later")
    refused = host.run("restore", str(file), "--fingerprint", fingerprint)
    assert (refused.returncode, "--over-newer-store" in refused.stderr) == (1, True)
    assert "conv:later" in str(look(host.environ))
    lock = take_lock(host.state_dir)
    try:
        running = host.run("restore", str(file), "--fingerprint", fingerprint, "--over-newer-store")
    finally:
        os.close(lock)
    assert (running.returncode, "is running on this state directory" in running.stderr) == (78, True)
    (host.state_dir / "grants.head").write_text("ab" * 32 + "\n", encoding="utf-8")
    (host.state_dir / "redis-seen.json").write_text('{"count": 5000, "epoch": 8}', encoding="utf-8")
    done = host.run("restore", str(file), "--fingerprint", fingerprint, "--over-newer-store")
    assert done.returncode == 0, done.stderr
    assert without_own(look(host.environ)) == without_own(before)
    [aside] = host.state_dir.glob("before-restore-*")
    assert {path.name for path in aside.iterdir()} == {"redis", "store.secret", "grants.head", "redis-seen.json"}
    assert not (host.state_dir / "redis-seen.json").exists()
    assert counters(host) == (9, 5001)


def test_a_store_that_cannot_be_looked_at_may_be_newer(tmp_path: Path) -> None:
    host, file = Host(tmp_path), tmp_path / "agent.backup"
    make_store(host.environ)
    fingerprint = host.backup(file)
    for path in (host.state_dir / "redis" / "appendonlydir").glob("*.manifest"):
        path.write_text("nonsense\n", encoding="utf-8")
    refused = host.run("restore", str(file), "--fingerprint", fingerprint)
    assert (refused.returncode, "cannot be looked at" in refused.stderr) == (1, True)
    done = host.run("restore", str(file), "--fingerprint", fingerprint, "--over-newer-store")
    assert done.returncode == 0, done.stderr


def test_killed_while_the_new_store_is_prepared_the_old_one_stands_and_the_next_start_says_so(tmp_path: Path) -> None:
    host, file = Host(tmp_path), tmp_path / "agent.backup"
    before = make_store(host.environ, sessions=2000)
    fingerprint = host.backup(file)
    process = subprocess.Popen(
        [*PROGRAM, "restore", str(file), "--fingerprint", fingerprint],
        env=host.environ,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not list((host.state_dir / "restoring").glob("redis/appendonlydir/*.aof")):
            assert process.poll() is None, "it ended before the moment came"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (host.state_dir / "restoring").exists()
    lock = take_lock(host.state_dir)  # its servers have ended with it
    os.close(lock)
    told = host.run("restore", "--finish")
    assert (told.returncode, "the state is the one before it" in told.stdout) == (0, True)
    assert not (host.state_dir / "restoring").exists()
    assert look(host.environ) == before


@pytest.mark.long
def test_into_a_redis_of_your_own_under_the_store_secret_of_the_backup(tmp_path: Path) -> None:
    lost, file = Host(tmp_path / "1"), tmp_path / "agent.backup"
    make_store(lost.environ)
    fingerprint = lost.backup(file)
    (tmp_path / "r").mkdir()
    with redis_server(tmp_path / "r") as url:
        found = Host(tmp_path / "2", HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        other = found.run("restore", str(file), "--fingerprint", fingerprint)
        assert (other.returncode, "--store-key-file" in other.stderr) == (1, True)
        key = tmp_path / "store.key"
        arguments = ("restore", str(file), "--fingerprint", fingerprint, "--store-key-file", str(key))
        done = found.run(*arguments)
        assert done.returncode == 0, done.stderr
        listed = Host(tmp_path / "2", HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=key.read_text(encoding="utf-8").strip())
        letters = listed.run("dead", "list")
        assert (letters.returncode, len(letters.stdout.splitlines())) == (0, 3), letters.stderr
        again = listed.run("restore", str(file), "--fingerprint", fingerprint)
        assert again.returncode == 0, again.stderr
        assert "no restore to complete" in listed.run("restore", "--finish").stdout


def test_killed_while_a_redis_of_your_own_is_filled_it_is_given_up_and_the_old_store_stands(tmp_path: Path) -> None:
    async def begin(url: str) -> None:
        async with open_redis(url) as client:
            await client.command("SET", NAMES.cursor, "old")
            await RestoreSwitch(client, NAMES).begin()
            await client.command("SET", NAMES.restoring("epoch", ""), 5)

    async def left(url: str) -> object:
        async with open_redis(url) as client:
            return await client.command("KEYS", NAMES.pattern)

    with redis_server(tmp_path) as url:
        trio.run(begin, url)
        told = Host(tmp_path / "2", HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY).run("restore", "--finish")
        assert (told.returncode, "the state is the one before it" in told.stdout) == (0, True), told.stderr
        assert trio.run(left, url) == [NAMES.cursor.encode()]


def add_to(host: Host, conversation: str) -> None:
    async def add() -> None:
        async with open_store(host.environ) as client:
            await client.command("HSET", NAMES.conversation(conversation), "next", 2)
            await client.command("INCRBY", NAMES.write_count, 100)
            await client.command("XADD", NAMES.ledger, f"{int(time.time() * 1000) + 60_000}-0", "e", "taken")

    trio.run(add)


def counters(host: Host) -> tuple[int, int]:
    async def read() -> tuple[int, int]:
        async with open_store(host.environ) as client:
            found = cast("list[bytes]", await client.command("MGET", NAMES.epoch, NAMES.write_count))
            return int(found[0]), int(found[1])

    return trio.run(read)
