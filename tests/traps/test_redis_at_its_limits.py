"""Real processes on a Redis that is full, cannot persist, or went back in time (DESIGN rules 16 and 17)."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis
import trio

from bus.records.keys import Keys
from sandbox.people import Person
from tests.http_page import page_at
from tests.waiting import waiting_for
from tests.world import World, world

PEOPLE = ("Ada", "Ben", "Cleo")
NEARLY_FULL = "nothing is taken in"
AS_FULL_AS_CAN_BE = 1_000_000  # bytes: less than an empty server uses


@asynccontextmanager
async def patient_world(directory: Path) -> AsyncIterator[tuple[World, redis.Redis]]:
    async with world(directory, people=PEOPLE, HASHEE_HANDLER="tests.traps.handlers:patient") as w:
        with server_of(w) as client:
            yield w, client


def server_of(w: World) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(w.state_dir / "redis" / "redis.sock"), protocol=2, socket_timeout=5)


async def say(w: World, expected: dict[Person, list[str]], text: str) -> None:
    for person in w.people:
        await person.say(w.conversations[person], text)
        expected.setdefault(person, []).append(f"echo: {text}")


def heard(w: World) -> int:
    return sum(len(person.transcript.heard(w.conversations[person])) for person in w.people)


def used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def readiness(w: World) -> str:
    return page_at(w.http_url + "/readyz")[1]


def kept_nearly_full(client: redis.Redis) -> bool:
    """Has it nearly full, whatever has just left its memory, such as the buffers of a connection; True."""
    client.config_set("maxmemory", int(used(client) / 0.95))
    return True


async def test_rule_16_a_full_redis_drains_takes_nothing_in_and_goes_on_by_itself(tmp_path: Path) -> None:
    async with patient_world(tmp_path) as (w, client):
        expected: dict[Person, list[str]] = {}
        await say(w, expected, "before")
        await w.all_answered(expected)

        await say(w, expected, "under way")
        await w.until(lambda: client.xlen(jobs_of(w)) == len(PEOPLE))
        await w.until(lambda: kept_nearly_full(client) and NEARLY_FULL in w.log())  # what is there is answered
        await w.all_answered(expected)

        before = heard(w)
        await w.until(lambda: kept_nearly_full(client) and NEARLY_FULL in readiness(w))
        await say(w, expected, "while it is nearly full")
        await w.until(lambda: kept_nearly_full(client) and 'reason="hold"' in w.page("/metrics"))
        assert heard(w) == before
        client.config_set("maxmemory", 0)
        await w.until(lambda: NEARLY_FULL not in readiness(w))
        times = w.log().count(NEARLY_FULL)
        assert "has room again" in w.log()
        await w.until(lambda: client.xlen(jobs_of(w)) > 0)
        client.config_set(
            "maxmemory", AS_FULL_AS_CAN_BE
        )  # with jobs under way, and not one of their answers can be written
        await say(w, expected, "while it is full")
        await w.until(lambda: w.log().count(NEARLY_FULL) > times)

        client.config_set("maxmemory", 0)
        await w.all_answered(expected)
        assert "Traceback" not in w.log()


async def test_rule_16_a_redis_that_cannot_persist_is_waited_for(tmp_path: Path) -> None:
    async with patient_world(tmp_path) as (w, client):
        expected: dict[Person, list[str]] = {}
        await say(w, expected, "under way")
        await w.until(lambda: client.xlen(jobs_of(w)) > 0)
        obstacle = w.state_dir / "redis" / "dump.rdb"
        obstacle.mkdir()
        client.config_set("save", "3600 1000000")
        client.bgsave()
        await w.until(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok")
        await w.until(lambda: refuses_writes(client))
        await say(w, expected, "while it cannot persist")
        await w.until(lambda: 'reason="redis_away"' in w.page("/metrics"))
        obstacle.rmdir()
        client.bgsave()
        await w.all_answered(expected)
        assert "Traceback" not in w.log()


def refuses_writes(client: redis.Redis) -> bool:
    try:
        client.set("a stranger's key", "1")
    except redis.exceptions.ResponseError as error:
        return "MISCONF" in str(error)
    return False


def jobs_of(w: World) -> str:
    return Keys(w.environment["HASHEE_AGENT_ID"]).jobs


async def test_rule_17_a_redis_that_went_back_under_running_processes_is_talked_through_in_new_sessions(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "one")
        await w.all_answered({ada: ["echo: one"]})
        data = w.state_dir / "redis"
        shutil.copytree(data / "appendonlydir", tmp_path / "older")
        for number in range(5):
            await ada.say(conversation, f"lost {number}")
        await w.all_answered({ada: ["echo: one", *(f"echo: lost {number}" for number in range(5))]})

        os.kill(w.keeper_pid, signal.SIGSTOP)  # so that it starts Redis only when the older files are in place
        try:
            await w.kill(w.redis_pid())
            shutil.rmtree(data / "appendonlydir")
            shutil.copytree(tmp_path / "older", data / "appendonlydir")
        finally:
            os.kill(w.keeper_pid, signal.SIGCONT)
        await w.until(lambda: "went back in time" in w.log())

        number = 0
        with waiting_for("an answer to what is said after the trouble", 60):
            while "echo: after" not in " ".join(ada.transcript.heard(conversation)):
                await ada.say(conversation, f"after {number}")
                number += 1
                with trio.move_on_after(2):
                    await ada.transcript.until(lambda: "echo: after" in " ".join(ada.transcript.heard(conversation)))
        texts = ada.transcript.heard(conversation)
        assert len(set(texts)) == len(texts), "something was answered twice"
        assert not ada.unreadable
        assert "hashee_redis_went_back_total 1.0" in w.page("/metrics")
