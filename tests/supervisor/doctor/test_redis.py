"""What Redis tells of itself, each fault set at a real one."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from bus.records.keys import Keys
from supervisor.doctor.case import Case
from supervisor.doctor.clock import skew
from supervisor.doctor.findings import Verdict
from supervisor.doctor.redis import look_at_redis
from tests.redis_server import RedisServer, running_redis
from tests.supervisor.doctor.builders import case_of, named, verdicts
from tests.supervisor.settings.environment import STORE_KEY

WELL = ("redis: reached", "clock: Redis", "redis: fit", "redis: room", "redis: persistence", "redis: clients")


def case_with(server: RedisServer, tmp_path: Path) -> Case:
    return case_of(tmp_path, HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY)


def test_a_redis_that_is_fit_is_well_and_nothing_is_written(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        assert verdicts(look_at_redis(case_with(server, tmp_path))) == dict.fromkeys(WELL, "ok")
        assert client.dbsize() == 0
        assert client.info("memory")["number_of_cached_scripts"] == 0


@pytest.mark.parametrize(
    ("setting", "value", "name", "says"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis: fit", "noeviction"),
        ("appendonly", "no", "redis: fit", "appendonly no; set it to yes"),
    ],
)
def test_a_setting_by_which_messages_are_lost_is_bad(
    tmp_path: Path, setting: str, value: str, name: str, says: str
) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.config_set(setting, value)
        finding = named(look_at_redis(case_with(server, tmp_path)))[name]
    assert finding.verdict == "bad"
    assert says in finding.said


@pytest.mark.parametrize(("filled", "verdict"), [(0.85, "warn"), (0.95, "bad"), (0.2, "ok")])
def test_room_that_runs_out(tmp_path: Path, filled: float, verdict: str) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.setrange("much", 30 << 20, b"x")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / filled))
        assert named(look_at_redis(case_with(server, tmp_path)))["redis: room"].verdict == verdict


def test_a_maxmemory_that_is_too_little_is_a_warning(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.config_set("maxmemory", 20 << 20)
        finding = named(look_at_redis(case_with(server, tmp_path)))["redis: room"]
        client.config_set("maxmemory", 0)
        client.setrange("much", 30 << 20, b"x")
        client.config_set("maxmemory", 20 << 20)
        full = named(look_at_redis(case_with(server, tmp_path)))["redis: room"]
    assert finding.verdict == "warn"
    assert "HASHEE_REDIS_MEMORY" in finding.remedy
    assert full.verdict == "bad"


def test_a_replica_is_bad(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.replicaof("127.0.0.1", "1")
        assert named(look_at_redis(case_with(server, tmp_path)))["redis: role"].verdict == "bad"


def test_clients_that_are_nearly_all_are_a_warning(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.config_set("maxclients", 2)  # this one, and the doctor's
        assert named(look_at_redis(case_with(server, tmp_path)))["redis: clients"].verdict == "warn"


def test_a_wrong_password_is_bad_and_shown_nowhere(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.config_set("requirepass", "right")
        case = case_of(tmp_path, HASHEE_REDIS_URL=f"{server.url}?password=Wr0ng", HASHEE_STORE_KEY=STORE_KEY)
        finding = named(look_at_redis(case))["redis: reached"]
    assert (finding.verdict, finding.said.split(":")[0]) == ("bad", "not_authenticated")
    assert "password in HASHEE_REDIS_URL" in finding.remedy
    assert "Wr0ng" not in str(finding)


def test_a_redis_that_hangs_is_bad_after_a_while(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.client_pause(60_000, all=True)
        finding = named(look_at_redis(replace(case_with(server, tmp_path), answer_seconds=0.05)))["redis: reached"]
    assert (finding.verdict, "no answer within" in finding.said) == ("bad", True)
    assert "redis-cli -u" in finding.remedy


def test_a_private_redis_that_does_not_run_is_unknown_and_nothing_is_made_for_it(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    stopped = named(look_at_redis(case_of(state_dir)))["redis: reached"]
    assert (stopped.verdict, stopped.remedy) == ("unknown", "hashee-agent up")
    assert not list(state_dir.iterdir())
    hung = named(look_at_redis(case_of(state_dir, status={})))["redis: reached"]
    assert (hung.verdict, f"tail {state_dir}/redis/redis.log" in hung.remedy) == ("bad", True)
    gone = case_of(state_dir, HASHEE_REDIS_URL="redis://127.0.0.1:1", HASHEE_STORE_KEY=STORE_KEY)
    assert named(look_at_redis(gone))["redis: reached"].verdict == "bad"


def test_a_clock_that_is_off_redis_is_judged_by_what_is_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert skew("Redis", 5.5, 1.0).verdict == "ok"
    assert skew("Redis", -7.0, 1.0).verdict == "warn"
    honest = time.time
    with running_redis(tmp_path) as server:
        monkeypatch.setattr(time, "time", lambda: honest() + 3600)
        finding = named(look_at_redis(case_with(server, tmp_path)))["clock: Redis"]
    assert finding.verdict == "bad"
    assert "ahead of the Redis" in finding.said


def test_a_key_that_all_conversations_share_and_that_is_damaged_is_named(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        case = case_with(server, tmp_path)
        client.set(Keys(str(case.agent_id)).ledger, "of another type")
        found = named(look_at_redis(case))["redis: keys"]
        assert found.verdict is Verdict.BAD
        assert "ledger is a string and must be a stream" in found.said
