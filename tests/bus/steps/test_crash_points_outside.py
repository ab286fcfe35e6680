"""Who sends from outside may die at any step and ask again with the same key; so may each supervisor: everything arrives once, in order."""

import itertools
from dataclasses import dataclass, field

from bus.records.outside import OUTSIDE, SendKey
from bus.records.records import decode_reply_record
from bus.steps.outbox import Committed
from bus.steps.outside import SendOutcome
from bus.steps.recovery import Reclaim
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Supervisor
from tests.bus.steps.test_crash_points import DEATHS, Died, Mortal
from tests.bus.steps.test_rules_outside import said
from tests.bus.talk import Talk, answer, outbox_record, talk_of

READERS = ("a", "b", "c")
STEPS = ("send", "let_out", "commit", "confirm")


@dataclass
class Digest:
    """One message to each reader, in as many lives of sender and supervisor as it takes. `stored`: what the relay has, once for each id."""

    scene: RedisScene
    lives: int = 0
    stored: list[str] = field(default_factory=list)

    async def goes_on(self) -> bool:
        """One life, to its death or to where there is nothing left to do. True when it got there."""
        self.lives += 1
        supervisor = await self.scene.supervisor(f"supervisor-{self.lives}")
        await supervisor.check()
        try:
            await self._take_over(supervisor)
            await self._ask_for_all(supervisor)
            while await self._send_one(supervisor):
                pass
        except Died:
            return False
        return True

    async def _take_over(self, supervisor: Supervisor) -> None:
        lease = supervisor.recovery
        for pending in await lease.pending(lease.replies):
            await lease.reclaim(lease.replies, pending, Reclaim())
        for conversation in await supervisor.outbox.all():
            former = await supervisor.outbox.holder_of(conversation)
            record = await supervisor.outbox.resend(conversation, former_holder=former)
            if record is not None:
                await self._deliver(supervisor, conversation, record.client_message_id)

    async def _ask_for_all(self, supervisor: Supervisor) -> None:
        for one in READERS:
            key = SendKey(one.encode(), b"news")
            sent = await supervisor.outside.send(
                one, said(one, one), f"{OUTSIDE}{one}", key=key, budgets=supervisor.store.budgets
            )
            assert sent in (SendOutcome.QUEUED, SendOutcome.WAITS, SendOutcome.ALREADY)

    async def _send_one(self, supervisor: Supervisor) -> bool:
        entry = await supervisor.take_reply()
        if entry is None:
            return await supervisor.outside.let_out()
        record = decode_reply_record(entry.fields["r"])
        commit = await supervisor.outbox.commit(
            entry_id=entry.id,
            conversation_id=record.conversation_id,
            client_message_id=record.job_id,
            answers=(record.job_id, record.place),
            record=outbox_record(record.job_id, record.conversation_id),
            sessions=[],
            epoch=supervisor.write_count.epoch,
            rate_per_second=0,
        )
        assert commit.outcome is Committed.COMMITTED
        await self._deliver(supervisor, record.conversation_id, record.job_id)
        return True

    async def _deliver(self, supervisor: Supervisor, conversation: str, message_id: str) -> None:
        if message_id not in self.stored:
            self.stored.append(message_id)
        await supervisor.outbox.confirm(conversation, message_id, "m", 2)


PLANS: list[dict[str, str]] = [
    *({step: death} for step in STEPS for death in DEATHS[1:]),
    *({one: "dies after", other: "dies before"} for one, other in itertools.permutations(STEPS, 2)),
]


async def test_every_step_may_die_before_it_or_after_it_and_another_one_with_it(redis_url: str) -> None:
    for plan in PLANS:
        scene = RedisScene(redis_url)
        await somebody_wrote(scene)
        scene.commands = Mortal(scene.client, dict(plan))
        digest = Digest(scene)
        while not await digest.goes_on():
            assert digest.lives < 10
        assert digest.lives > 1
        assert digest.stored == [f"{OUTSIDE}{name}" for name in READERS]
        committed = [one for one in await ledger(scene) if one.startswith("encrypted")]
        assert sorted(committed) == [f"encrypted {OUTSIDE}{name}" for name in READERS], "each is encrypted once"
        assert await scene.leftovers() == []
        facts = await scene.facts()
        assert facts.counted == facts.waits == {}
        scene.close()


async def somebody_wrote(scene: RedisScene) -> None:
    talk: Talk = await talk_of(scene, "before")
    worker = await scene.worker("worker-1")
    for one in READERS:
        await talk.accept(1, conversation=one)
        await answer(worker)


async def ledger(scene: RedisScene) -> list[str]:
    rows = scene.client.ask("XRANGE", scene.keys.ledger, "-", "+")
    assert isinstance(rows, list)
    found = []
    for row in rows:
        assert isinstance(row, (list, tuple))
        flat = row[1]
        assert isinstance(flat, list)
        found.append(b" ".join(part for part in (flat[1], flat[3]) if isinstance(part, bytes)).decode())
    return found
