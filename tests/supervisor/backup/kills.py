"""`python -m tests.supervisor.backup.kills [--moments N] [--seed N]`: `backup` and `restore` as real processes, killed with SIGKILL at many moments of their lives.

After each: no backup stands under its name that is not whole; the store is the old one or the restored one, whole; and a second try comes
to its end. The exit status is 1 where that is not so. A few moments of it are a test (tests/supervisor/backup/test_kills.py).
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import redis
import trio

from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from supervisor.keeper.state_directory import take_lock
from tests.redis_server import running_redis
from tests.supervisor.backup.builders import AGE, KEY, read
from tests.supervisor.cli.keys.builders import fill, kinds, loose_ends, opened
from tests.supervisor.cli.keys.running import NAMES, PROGRAM, environ_of, look, make_store, open_store, run
from tests.supervisor.settings.environment import STORE_KEY

OWN = ("signed", "one time", "restored signed", "restored one time")
SESSIONS = 300
IDENTITIES = "HASHEE_BACKUP_IDENTITY_FILE"
Content = dict[str, object]


class Host:
    """An agent that does not run: a store, a backup of an earlier one, and how both are looked at."""

    def __init__(self, directory: Path, **more: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "age.key").write_text(f"{AGE}\n", encoding="utf-8")
        sealing = {"HASHEE_BACKUP_RECIPIENTS": str(AGE.to_public()), IDENTITIES: str(directory / "age.key")}
        self.directory = directory
        self.state_dir = directory / "state"
        self.environ = environ_of(directory, **sealing, **more)
        self.file = directory / "agent.backup"
        self.restore_command: tuple[str, ...] = ()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, environ=self.environ, cwd=self.directory)

    def save(self) -> None:
        """The backup that is restored from."""
        made = self.run("backup", str(self.file))
        assert made.returncode == 0, made.stderr
        fingerprint = made.stderr.split("signed by ")[1].split(";")[0]
        self.restore_command = ("restore", str(self.file), "--fingerprint", fingerprint, "--over-newer-store")

    def begin_anew(self) -> None:
        """With the old store, as it was before anything was restored."""
        raise NotImplementedError

    def look(self) -> Content:
        """What is in the store; nothing half of it."""
        raise NotImplementedError


class PrivateHost(Host):
    """With a private Redis."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        make_store(self.environ, sessions=SESSIONS)
        self.save()
        trio.run(self._go_on)
        self._kept = directory / "kept"
        self._copy(self.state_dir, self._kept)

    async def _go_on(self) -> None:
        async with open_store(self.environ) as client:
            await client.command("HSET", NAMES.conversation("later"), "next", 2)

    def begin_anew(self) -> None:
        shutil.rmtree(self.state_dir)
        self._copy(self._kept, self.state_dir)

    def look(self) -> Content:
        os.close(take_lock(self.state_dir))  # the servers of whoever was killed have ended with it
        assert not (self.state_dir / "restoring").exists()
        return without_own(look(self.environ))

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"), copy_function=shutil.copy2)
        target.chmod(0o700)


class GivenHost(Host):
    """With a Redis of its own, which goes on."""

    def __init__(self, directory: Path, url: str, socket: Path) -> None:
        super().__init__(directory, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        self.state_dir.mkdir(mode=0o700)
        self._url = url
        self._client = redis.Redis(unix_socket_path=str(socket), protocol=2)
        trio.run(self._fill)
        self.save()
        self._client.hset(NAMES.conversation("later"), "next", "2")
        keys = [*self._client.scan_iter("*")]
        self._kept = {key: self._client.dump(key) or b"" for key in keys}

    async def _fill(self) -> None:
        async with open_redis(self._url) as client:
            keys = await StoreSeal(client, NAMES).adopt(_store_key())
            await fill(client, keys, sessions=SESSIONS)
            workers = cast("list[bytes]", await client.command("KEYS", NAMES.presence("*")))
            await client.command("DEL", NAMES.reclaimer, *workers)
            for stream in (NAMES.jobs, NAMES.replies):
                await client.command("XGROUP", "DESTROY", stream, "workers" if stream == NAMES.jobs else "supervisors")

    def begin_anew(self) -> None:
        self._client.flushall()
        for key, value in self._kept.items():
            self._client.restore(key, 0, value)

    def look(self) -> Content:
        async def open_all() -> Content:
            async with open_redis(self._url) as client:
                keys = await StoreSeal(client, NAMES).adopt(_store_key())
                assert "restoring" not in await kinds(client)
                assert await loose_ends(client) == []
                return await opened(client, keys)

        return without_own(trio.run(open_all))


def _store_key() -> bytes:
    return bytes(range(64, 96))  # STORE_KEY


def without_own(content: Content) -> Content:
    return {key: value for key, value in content.items() if key not in OWN}


@contextmanager
def given_host(directory: Path) -> Iterator[GivenHost]:
    directory.mkdir(exist_ok=True)
    (directory / "redis").mkdir()
    with running_redis(directory / "redis") as server:
        yield GivenHost(directory, server.url, server.socket)


def killed_after(host: Host, seconds: float, *arguments: str) -> bool:
    """A command, killed after so long unless it has ended; whether it had."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        env=host.environ,
        cwd=host.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert status == 0, arguments
    return True


def lasts(host: Host, *arguments: str) -> float:
    """How long a command takes that nobody kills."""
    began = time.monotonic()
    done = host.run(*arguments)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def kill_restores(host: Host, shares: Iterable[float]) -> Counter[str]:
    """At these shares of an undisturbed restore's time; which store stood then, how often."""
    old = host.look()
    seconds = lasts(host, *host.restore_command)
    new = host.look()
    assert old != new
    seen = Counter[str]()
    for share in shares:
        host.begin_anew()
        has_ended = killed_after(host, share * seconds, *host.restore_command)
        finished = host.run("restore", "--finish")
        assert finished.returncode == 0, finished.stderr
        found = host.look()
        assert found in ([new] if has_ended else [old, new]), (
            f"killed at {share:.3f}: neither of both\n{finished.stdout}"
        )
        seen[f"{'ended' if has_ended else 'killed'}, {'new' if found == new else 'old'}"] += 1
        again = host.run(*host.restore_command)
        assert again.returncode == 0, again.stderr
        assert host.look() == new
    return seen


def kill_backups(host: Host, shares: Iterable[float]) -> Counter[str]:
    """At these shares of an undisturbed backup's time; whether one stood there then, how often."""
    folder = host.directory / "backups"
    folder.mkdir()
    seconds = lasts(host, "backup", str(folder / "undisturbed.backup"))
    seen = Counter[str]()
    for number, share in enumerate(shares):
        file = folder / f"{number}.backup"
        has_ended = killed_after(host, share * seconds, "backup", str(file))
        assert file.exists() or not has_ended
        seen[f"{'ended' if has_ended else 'killed'}, {'there' if file.exists() else 'none'}"] += 1
        if not file.exists():
            made = host.run("backup", str(file))
            assert made.returncode == 0, made.stderr
        proven, found = read(file.read_bytes())
        assert proven.keystore is not None
        assert found.counts["sessions"] >= SESSIONS
    return seen


def shares_of(moments: int, seed: int) -> Sequence[float]:
    """From where a process has read its program to a little after its end."""
    chance = random.Random(seed)
    return [chance.uniform(0.25, 1.05) for _ in range(moments)]


def main() -> int:
    """Private Redis and one that is given, restores and backups."""
    parser = argparse.ArgumentParser(prog="python -m tests.supervisor.backup.kills", description=__doc__)
    parser.add_argument("--moments", type=int, default=40, help="of each of the four")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    assert KEY.identities is not None
    directory = Path(tempfile.mkdtemp(prefix="kills-"))
    shares = shares_of(arguments.moments, arguments.seed)
    private = PrivateHost(directory / "private")
    with given_host(directory / "given") as given:
        for name, host in (("private Redis", private), ("given Redis", given)):
            for what, kill in (("backup", kill_backups), ("restore", kill_restores)):
                seen = kill(host, shares)
                told = ", ".join(f"{count} × {outcome}" for outcome, count in sorted(seen.items()))
                print(f"{what}, {name}: {arguments.moments} moments: {told}", flush=True)
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
