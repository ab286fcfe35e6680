"""What SECURITY.md says is at rest of conversations is what there is, and nothing of it can be read without the bus key."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from bus.records.kinds import PLAIN_KINDS, SEALED_KINDS
from bus.records.timers import Timer
from bus.steps.job_steps import Failed, Finished
from bus.steps.thread_steps import Noted
from tests.bus.builders import reply
from tests.bus.redis_scene import RedisScene
from tests.bus.talk import talk_and_worker

ROOT = Path(__file__).parents[3]

KIND_OF = {
    "waits": "waits",
    "journal": "emitted",
    "state": "state",
    "store": "store",
    "history": "history",
    "timers": "timers",
    "answers to programs": "outside",
    "sent keys": "send_keys",
    "gate's files": None,
    "spool": None,
}
"""Under which kind of key each row of the table stands; None: not in Redis."""

KEPT_UNSEALED = {"send_keys"}
"""HMACs, as the table says."""


def rows() -> list[str]:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.partition("## What is at rest of conversations")[2].partition("\n## ")[0]
    return re.findall(r"^\| (?:the )?\*([^*]+)\*", section, re.MULTILINE)


@pytest.mark.pure
def test_each_row_is_a_kind_of_key_and_sealed_unless_it_says_otherwise() -> None:
    assert set(rows()) == set(KIND_OF)
    kinds = {kind for kind in KIND_OF.values() if kind is not None}
    assert kinds <= SEALED_KINDS | PLAIN_KINDS
    assert kinds - SEALED_KINDS == KEPT_UNSEALED


def spellings(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), *(base64.b64encode(bytes(n) + secret)[4:-4] for n in range(3))]


def in_the_clear(scene: RedisScene, secret: bytes) -> list[bytes]:
    """The keys in whose names or contents it can be read."""
    contents = {name: name + b"\0" + b"\0".join(pieces(value)) for name, value in scene.contents().items()}
    return [name for name, whole in contents.items() if any(one in whole for one in spellings(secret))]


def pieces(value: object) -> Iterable[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from pieces(name)
            yield from pieces(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from pieces(inner)


def kinds_there(scene: RedisScene) -> set[str]:
    return {name.decode().partition("}:")[2].partition(":")[0] for name in scene.contents()}


async def test_what_handlers_keep_cannot_be_read_in_redis(redis_url: str) -> None:
    scene = RedisScene(redis_url)
    secret = b"zanzibar, the twelfth of May"
    talk, worker = await talk_and_worker(scene)
    steps = worker.steps
    await talk.accept(1)
    job = await worker.take()
    assert job is not None
    now_ms = await talk.supervisor.store.now_ms()
    timer = Timer(
        id="t",
        conversation_id=job.conversation_id,
        due_ms=now_ms + 10**6,
        kind="reminder",
        name=secret.decode(),
        data=msgspec.msgpack.encode(secret.decode()),
    )
    assert (
        await steps.note(job, "price-of-the-tickets#1", steps.seal_entry(job, "price-of-the-tickets#1", secret))
        is Noted.NOTED
    )
    assert (
        await steps.settle(
            job,
            "waiting",
            [
                steps.state_effect(job, secret),
                steps.exchange_effect(job, now_ms, secret),
                steps.store_effect("a key of the owner's own", None, secret),
                ("wait", "w", steps.seal_wait(job, "w", secret), ""),
                ("timer", "t", timer.due_ms, steps.seal_timer(timer)),
            ],
            last=[("0", reply(secret.decode()))],
        )
        is Finished.DONE
    )
    await talk.accept(2)
    second = await worker.take()
    assert second is not None
    assert (
        await steps.note(second, "price-of-the-tickets#1", steps.seal_entry(second, "price-of-the-tickets#1", secret))
        is Noted.NOTED
    )
    assert {"waits", "emitted", "state", "store", "history", "timers", "replies"} <= kinds_there(scene)
    assert in_the_clear(scene, secret) == []
    assert len(in_the_clear(scene, b"a key of the owner's own")) == 1, "as the table says; and what is there is found"
    assert len(in_the_clear(scene, b"price-of-the-tickets#1")) == 1
    assert await steps.fail(second, "broke", None, reply(secret.decode())) is Failed.DEAD
    assert in_the_clear(scene, secret) == []
    scene.close()
