"""For how long SECURITY.md says that something of a conversation is at rest is how long it is there."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.records.kept import DAY_MS, EXCHANGES_KEPT_MS
from bus.records.outside import OUTSIDE, SendKey
from bus.records.records import Job
from bus.records.timers import Timer
from bus.steps.job_steps import Failed, Finished
from bus.steps.outside import KEPT_SECONDS, PERIOD_MS, PERIODS_BEFORE, SendOutcome
from bus.steps.thread_steps import Effect, Noted
from tests.bus.builders import CONVERSATION
from tests.bus.redis_scene import RedisScene
from tests.bus.steps.test_rules_outside import said
from tests.bus.talk import talk_and_worker
from tests.redis_server import redis_server
from workers.handling.outside_questions import KEPT_FOR
from workers.talk.asks import A_DAY, LONGEST
from workers.talk.chat import Chat

ROOT = Path(__file__).parents[3]
HOUR_MS = 3_600_000
FOR_EVER = -1


def told() -> dict[str, str]:
    """What stands in the column of durations, by the row's name."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.partition("## What is at rest of conversations")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (?:the )?\*([^*]+)\*[^|]*\| ([^|]*) \|", section, re.MULTILINE))


@pytest.mark.pure
def test_each_number_of_days_that_it_names_is_the_codes_own() -> None:
    named = {name: [int(days) for days in re.findall(r"\d+", cell)] for name, cell in told().items()}
    assert {name: days for name, days in named.items() if days} == {
        "waits": [LONGEST.days],
        "history": [EXCHANGES_KEPT_MS // DAY_MS],
        "answers to programs": [KEPT_FOR.days],
        "sent keys": [PERIODS_BEFORE * PERIOD_MS // DAY_MS, KEPT_SECONDS * 1000 // DAY_MS],
    }
    assert "a day unless the handler says otherwise" in told()["waits"]
    assert inspect.signature(Chat.ask).parameters["timeout"].default == A_DAY
    assert A_DAY.days == 1


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisScene]:
    with redis_server(tmp_path) as url:
        scene = RedisScene(url)
        yield scene
        scene.close()


def left_ms(scene: RedisScene) -> dict[str, int]:
    """How long each kind of key of the table has to live; FOR_EVER where nothing but its owner's code takes it away."""
    kinds = {"waits", "emitted", "state", "store", "history", "timers", "send_keys"}
    found = {scene.keys.split(name.decode())[0]: scene.client.ask("PTTL", name) for name in scene.contents()}
    return {kind: left for kind, left in found.items() if kind in kinds and isinstance(left, int)}


async def test_what_expires_does_so_in_that_time_and_all_else_goes_with_what_the_table_names(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    steps, store = worker.steps, talk.supervisor.store

    async def job(seq: int) -> Job:
        await talk.accept(seq)
        taken = await worker.take()
        assert taken is not None
        return taken

    first, now_ms = await job(1), await store.now_ms()
    assert await steps.note(first, "a step", steps.seal_entry(first, "a step", b"result")) is Noted.NOTED
    timer = Timer(id="t", conversation_id=CONVERSATION, due_ms=now_ms + DAY_MS, kind="reminder", name="later")
    effects: list[Effect] = [
        steps.state_effect(first, b"state"),
        steps.exchange_effect(first, now_ms, b"said"),
        steps.store_effect("key", None, b"value"),
        ("wait", "w", steps.seal_wait(first, "w", b"wait"), ""),
        ("timer", "t", timer.due_ms, steps.seal_timer(timer)),
    ]
    assert left_ms(redis)["emitted"] == FOR_EVER, "the journal, as long as its handler runs"
    assert await steps.settle(first, "waiting", effects) is Finished.DONE
    key = SendKey(b"k" * 16, b"deployed")
    sent = talk.supervisor.outside.send(CONVERSATION, said("x"), f"{OUTSIDE}x", key=key, budgets=store.budgets)
    assert await sent is SendOutcome.QUEUED
    left = left_ms(redis)
    assert EXCHANGES_KEPT_MS - HOUR_MS <= left.pop("history") <= EXCHANGES_KEPT_MS
    assert PERIODS_BEFORE * PERIOD_MS < left.pop("send_keys") <= KEPT_SECONDS * 1000
    assert left == dict.fromkeys(("waits", "state", "store", "timers"), FOR_EVER), (
        "the journal has gone with the handler"
    )

    second = await job(2)
    gone: list[Effect] = [steps.forget_effect(second), steps.store_effect("key", None, None)]
    assert await steps.settle(second, "done", gone) is Finished.DONE
    assert set(left_ms(redis)) == {"send_keys"}

    third = await job(3)
    assert await steps.note(third, "a step", steps.seal_entry(third, "a step", b"result")) is Noted.NOTED
    assert await steps.fail(third, "broke", None) is Failed.DEAD
    assert set(left_ms(redis)) == {"send_keys"}, "the journal is in the dead letter"
    [letter] = await talk.supervisor.dead.first()
    assert b"a step" in letter.values
    assert await talk.supervisor.dead.drop(letter)
    assert await talk.supervisor.dead.first() == []
