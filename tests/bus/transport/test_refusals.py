"""Refused is not away: what Redis will not do has a name, and those who wait in it go on by themselves when it is mended."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import redis
import trio
from redis.exceptions import ResponseError

from bus.records.keys import JOBS_GROUP, Keys
from bus.transport.client import RedisClient, open_redis
from bus.transport.leases import LeaseKeeper
from bus.transport.lua import Scripts
from bus.transport.readers import LiveSubscriber, RedisStreamReader
from bus.transport.trouble import LAST_PAUSE_SECONDS, Trouble
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisRefused, RedisUnavailable, Wire, failure
from tests.bus.builders import AGENT
from tests.redis_server import RedisServer, running_redis
from tests.waiting import said_of, waiting_for

KEYS = Keys(AGENT)
USER, PASSWORD = "agent", "first"
MENDED_WITHIN_SECONDS = 2.0
PATIENCE_SECONDS = 30.0


@pytest.mark.pure
@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", RedisFull, "full"),
        ("ERR Error running script: @user_script:1: OOM command not allowed", RedisFull, "full"),
        ("MISCONF Redis is configured to save RDB snapshots", RedisFull, "cannot_persist"),
        ("NOREPLICAS Not enough good replicas to write.", RedisFull, "no_replicas"),
        ("LOADING Redis is loading the dataset in memory", RedisUnavailable, "loading"),
        ("BUSY Redis is busy running a script.", RedisUnavailable, "busy"),
        ("READONLY You can't write against a read only replica.", RedisUnavailable, "read_only"),
        ("NOAUTH Authentication required.", RedisDenied, "not_authenticated"),
        ("WRONGPASS invalid username-password pair", RedisDenied, "not_authenticated"),
        ("NOPERM this user has no permissions to run the 'xclaim' command", RedisDenied, "forbidden"),
        ("ERR The user executing the script can't run this command or subcommand", RedisDenied, "forbidden"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", RedisRefused, "wrong_type"),
        ("NOGROUP No such key", RedisRefused, "no_group"),
        ("BUSYGROUP Consumer Group name already exists", RedisRefused, "refused"),
        ("ERR unknown command", RedisRefused, "refused"),
        ("", RedisRefused, "refused"),
    ],
)
def test_each_refusal_has_its_kind_and_its_name(text: str, kind: type[RedisFailed], reason: str) -> None:
    failed = failure(ResponseError(text))
    assert (type(failed), failed.reason) == (kind, reason)


@pytest.mark.pure
def test_trouble_is_told_once_for_each_change_and_its_pause_grows_to_what_is_still_soon() -> None:
    told: list[tuple[str, str]] = []
    trouble = Trouble("thread", lambda who, reason: told.append((who, reason)))
    trouble.over()
    pauses = [trouble.met(RedisUnavailable()) for _ in range(1100)]
    trouble.met(RedisDenied())
    trouble.over()
    trouble.over()
    assert told == [("thread", reason) for reason in ("away", "forbidden", "")]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == pauses[-1] == LAST_PAUSE_SECONDS < MENDED_WITHIN_SECONDS
    assert trouble.met(RedisUnavailable()) == pauses[0]


# One wrong thing at a time, on a real server


@dataclass
class Scene:
    """A Redis whose operator spoils and mends it, and the parts that wait in it as a user of their own."""

    server: RedisServer
    admin: redis.Redis
    client: RedisClient
    leases: LeaseKeeper
    live: LiveSubscriber
    reader: RedisStreamReader
    told: list[tuple[str, str]] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def acl(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", USER, *rules)

    def log_out(self) -> None:
        """As after a restart of the server with the new password: who was logged in is not any more."""
        self.admin.execute_command("CLIENT", "KILL", "USER", USER)

    async def read_on(self) -> None:
        while True:
            try:
                self.read += [entry.id for entry in await self.reader.read(10)]
            except RedisFailed:
                await trio.sleep(0.05)

    async def works(self) -> None:
        """Each part does its work."""
        entry = cast(bytes, self.admin.xadd(KEYS.jobs, {"r": "x"})).decode()
        await until(lambda: entry in self.read)
        said = entry.encode()
        while said not in self.heard:
            self.admin.publish(KEYS.live_channel, said)
            await trio.sleep(0.02)
        self.admin.xgroup_setid(KEYS.jobs, JOBS_GROUP, entry)
        self.leases.hold("1-0")  # of nobody: that it is lost says that the thread asks and hears
        await until(lambda: "1-0" in self.lost)
        self.lost.remove("1-0")
        assert self.troubles() == ["", "", ""]

    def troubles(self) -> list[str]:
        return [self.leases.trouble, self.live.trouble, self.reader.trouble]


async def until(condition: Callable[[], object]) -> None:
    with waiting_for(said_of(condition), PATIENCE_SECONDS):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket), protocol=2) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        url = f"unix://{USER}:{PASSWORD}@{server.socket}"
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            scripts = client.scripts
            leases = LeaseKeeper(
                url,
                scripts,
                stream=KEYS.jobs,
                group=JOBS_GROUP,
                consumer="me",
                interrupted=KEYS.interrupted,
                renew_seconds=0.1,
            )
            reader = RedisStreamReader(client, stream=KEYS.jobs, group=JOBS_GROUP, consumer="me", block_ms=200)
            heard: list[bytes] = []
            live = LiveSubscriber(client, KEYS.live_channel, heard.append, block_ms=200)
            made = Scene(server, admin, client, leases, live, reader, heard=heard)
            for part in (leases, live, reader):
                part.on_trouble = lambda who, reason: made.told.append((who, reason))
            leases.on_lost = made.lost.append
            await reader.make_group()
            leases.start()
            live.start()
            nursery.start_soon(made.read_on)
            await made.works()
            made.told.clear()
            yield made
            assert all(part.is_alive for part in (leases, live))
            nursery.cancel_scope.cancel()
        for part in (leases, live):
            await part.close()
        await reader.close()


Harm = Callable[[Scene], None]


def change_password(made: Scene) -> None:
    made.acl("resetpass", ">second")
    made.log_out()


def take_rights(made: Scene) -> None:
    made.acl("-xclaim", "-evalsha", "-subscribe", "-xreadgroup")
    made.log_out()


def take_the_user(made: Scene) -> None:
    made.admin.execute_command("ACL", "DELUSER", USER)


def give_all_back(made: Scene) -> None:
    made.acl("reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")


def be_a_replica(made: Scene) -> None:
    made.admin.execute_command("REPLICAOF", "127.0.0.1", "1")


def be_the_master(made: Scene) -> None:
    made.admin.execute_command("REPLICAOF", "NO", "ONE")


def be_full(made: Scene) -> None:
    made.admin.config_set("maxmemory", 1)


def have_room(made: Scene) -> None:
    made.admin.config_set("maxmemory", 0)


def stall(made: Scene) -> None:
    os.kill(made.server.pid, signal.SIGSTOP)


def go_on(made: Scene) -> None:
    os.kill(made.server.pid, signal.SIGCONT)


def be_of_a_wrong_type(made: Scene) -> None:
    made.admin.delete(KEYS.jobs)
    made.admin.set(KEYS.jobs, "no stream")


def lose_the_group(made: Scene) -> None:
    made.admin.delete(KEYS.jobs)


def make_it_a_stream(made: Scene) -> None:
    made.admin.delete(KEYS.jobs)
    made.admin.xgroup_create(KEYS.jobs, JOBS_GROUP, "0", mkstream=True)


def nothing(_made: Scene) -> None:
    """What mends itself."""


FAULTS: dict[str, tuple[Harm, Harm, set[str]]] = {
    "a changed password": (change_password, give_all_back, {"not_authenticated"}),
    "rights taken": (take_rights, give_all_back, {"forbidden"}),
    "the user is gone": (take_the_user, give_all_back, {"not_authenticated"}),
    "a replica": (be_a_replica, be_the_master, {"read_only"}),
    "full": (be_full, have_room, set()),  # leases are renewed and replies read all the same (rule 16)
    "stalled, with open connections": (stall, go_on, {"away", "silent"}),
    "a wrong type": (be_of_a_wrong_type, make_it_a_stream, {"wrong_type"}),
    "a lost group": (lose_the_group, nothing, set()),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_waits_in_redis_survives_says_once_and_goes_on_within_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spoil, mend, reasons = FAULTS[name]
    met, paused = Trouble.met, list[float]()

    def noted(trouble: Trouble, error: RedisFailed) -> float:
        paused.append(met(trouble, error))
        return paused[-1]

    monkeypatch.setattr(Trouble, "met", noted)
    async with scene(tmp_path) as made:
        spoil(made)
        made.leases.hold("1-0")
        await until(lambda: reasons <= set(made.troubles()))
        if reasons:  # whoever meets them waits as long as it ever does, and no thread dies of that
            await until(lambda: LAST_PAUSE_SECONDS in paused)
        assert made.leases.is_alive
        assert made.live.is_alive
        said = [reason for who, reason in made.told if who == "redis-leases" and reason]
        assert len(said) <= 2, "once for each change: the connection is lost, then refused"
        mend(made)
        mended = trio.current_time()
        await until(lambda: made.troubles() == ["", "", ""])
        assert (
            trio.current_time() - mended < MENDED_WITHIN_SECONDS * 5
        )  # on busy cores; what it needs is said by the pause above
        await made.works()


def test_a_wrong_password_is_refused_and_not_away(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        wire = Wire(f"unix://nobody:secret@{server.socket}", Scripts.load(), answer_timeout_seconds=None)
        with pytest.raises(RedisDenied) as caught:
            wire.call([("PING",)])
        assert caught.value.reason == "not_authenticated"
        assert "secret" not in str(caught.value)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("refused", "is_of_data"),
    [
        (RedisRefused("WRONGTYPE Operation against a key holding the wrong kind of value", "wrong_type"), True),
        (
            RedisRefused("ERR user_script:20: attempt to compare nil with number script: fc15, on @user_script:20."),
            True,
        ),
        (RedisRefused("ERR hash value is not an integer script: fc15, on @user_script:12."), True),
        (
            RedisRefused("READONLY You can't write against a read only replica. script: fc15, on @user_script:12."),
            False,
        ),
        (
            RedisRefused(
                "ERR Script attempted to access a non local key in a cluster node script: fc15, on @user_script:1."
            ),
            False,
        ),
        (RedisRefused("NOGROUP No such consumer group", "no_group"), False),
        (RedisDenied("NOPERM this user has no permissions", "forbidden"), False),
    ],
)
def test_a_refusal_is_of_the_data_only_where_a_value_is_its_reason(refused: RedisRefused, is_of_data: bool) -> None:
    """Whoever sets something aside for it must not do so while Redis refuses everything."""
    assert refused.is_of_data == is_of_data
