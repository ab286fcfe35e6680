"""A thousand open questions hold no job, no lease and no worker's slot, and nobody looks at them before one is due."""

from typing import cast

from bus.records.keys import JOBS_GROUP
from bus.steps.job_steps import Finished
from bus.steps.timers import Timers
from bus.transport.lua import Argument
from bus.transport.wire import Value
from tests.bus.builders import BUS_KEY
from tests.bus.redis_scene import RedisScene
from tests.bus.steps.test_rules_threads import waits
from tests.bus.talk import answer, talk_and_worker

MANY = 1000
A_DAY_MS = 86_400_000


class Counted:
    """A client that counts what is asked, and the bytes of the answers."""

    def __init__(self, scene: RedisScene) -> None:
        self._client = scene.client
        self.asked: list[str] = []
        self.answered = 0

    async def command(self, *command: Argument) -> Value:
        self.asked.append(str(command[0]))
        answer = await self._client.command(*command)
        self.answered += len(answer) if isinstance(answer, list) else 0
        return answer

    async def script(self, name: str, keys: object, *arguments: Argument) -> Value:
        self.asked.append(name)
        return await self._client.script(name, cast("list[str]", keys), *arguments)


async def test_a_thousand_open_questions_cost_no_slot_and_no_look(redis_url: str) -> None:
    scene = RedisScene(redis_url)
    talk, worker = await talk_and_worker(scene)
    looks = [await look(scene)]
    now_ms = await talk.supervisor.store.now_ms()
    for number in range(MANY):
        await talk.accept(1, conversation=f"conversation-{number}")
        job = await worker.take()
        assert job is not None
        deadline = ("timer", "wait", now_ms + A_DAY_MS, b"record")
        assert await worker.steps.settle(job, "waiting", [waits(job), deadline]) is Finished.DONE
    looks.append(await look(scene))
    assert looks[0] == looks[1], "as many commands as with none, and nothing comes back"
    assert scene.client.ask("XLEN", scene.keys.jobs) == 0
    pending = scene.client.ask("XPENDING", scene.keys.jobs, JOBS_GROUP)
    assert cast("list[Value]", pending)[0] == 0, "no lease is held that would be renewed"
    assert scene.client.ask("EXISTS", scene.keys.busy) == 0, "and no conversation is looked after"
    assert (await scene.facts()).counted["waits_open"] == MANY
    await talk.accept(1, conversation="another")
    assert await answer(worker) == "message 1"
    scene.close()


async def look(scene: RedisScene) -> tuple[list[str], int]:
    """What the one who fires timers asks each second, and how much it hears."""
    counted = Counted(scene)
    timers = Timers(counted, scene.keys, BUS_KEY)
    assert await timers.due(await timers.now_ms()) == []
    return counted.asked, counted.answered
